//! The daemon as its clients know it: the socket, what comes over it, and what is left after a crash.

mod daemon;
mod fixture;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::openapi::OpenApi;
use daemon::{Place, journal, read, request};
use serde_json::{Value, json};
use tintype::pipeline::Sampler;
use tintype::protocol::{ErrorCode, JobRequest, PreviewMode};

/// A small picture in so many steps; a thousand take some seconds.
fn picture(steps: usize, seed: u64) -> Value {
    json!({ "prompt": "a red box", "width": 16, "height": 16, "steps": steps, "seed": seed })
}

#[test]
fn a_job_from_request_to_picture() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let answer = daemon.ask("POST", "/v1/jobs", "", &picture(3, 7).to_string());
    assert_eq!(answer.status, 202, "{answer:?}");
    let job = answer.json();
    assert_eq!([&job["state"], &job["seed"], &job["model"]], [&json!("queued"), &json!(7), &json!("tiny")]);
    assert!(job["position"].is_u64() && job.get("eta_ms").is_some(), "{job}");
    let id = job["id"].as_str().unwrap();

    let events = daemon.events(id, 0);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["progress", "progress", "progress", "done"]);
    assert_eq!([&events[2]["step"], &events[2]["steps"]], [3, 3]);
    let second = events[1]["n"].as_u64().unwrap();
    assert_eq!(daemon.events(id, second), events[1..]);

    let image = daemon.get(&format!("/v1/jobs/{id}/image"));
    assert_eq!([image.header("content-type"), image.header("tintype-seed")], [Some("image/png"), Some("7")]);
    assert_eq!(daemon.job(id)["sha256"], events[3]["sha256"]);
    // The same request on the command line gives the same file.
    let args =
        "generate|a red box|--model|models/tiny.tintype|--width|16|--height|16|--steps|3|--seed|7|-o|a.png";
    let drawn = Command::new(env!("CARGO_BIN_EXE_tintype"))
        .args(args.split('|'))
        .current_dir(place.folder.path())
        .stdout(Stdio::null())
        .status();
    assert!(drawn.unwrap().success());
    assert!(std::fs::read(place.path("a.png")).unwrap() == image.body, "the pictures differ");
}

#[test]
fn a_picture_in_one_call() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let answer = daemon.ask("POST", "/v1/generate", "", &picture(2, 1).to_string());
    assert_eq!((answer.status, &answer.body[..8]), (200, &b"\x89PNG\r\n\x1a\n"[..]));
    let id = answer.header("tintype-job").unwrap();
    assert_eq!(daemon.job(id)["state"], "done");
}

#[test]
fn who_hangs_up_on_a_call_does_not_want_the_picture() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let mut stream = daemon.connect();
    stream.write_all(request("POST", "/v1/generate", "", &picture(1000, 1).to_string()).as_bytes()).unwrap();
    let begun = Instant::now();
    while daemon.get("/v1/jobs").json()["jobs"].as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    drop(stream);
    let id = daemon.get("/v1/jobs").json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    daemon.wait(&id, |job| job["state"] == "cancelled");
}

#[test]
fn previews_are_small_pictures() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let mut body = picture(40, 1);
    body["preview"] = json!("inline");
    let id = daemon.submit(&body);
    let events = daemon.events(&id, 0);
    let preview = events.iter().find(|event| event["event"] == "preview").expect("some previews are seen");
    assert_eq!(preview["mime"], "image/png");
    assert!(preview["b64"].as_str().unwrap().starts_with("iVBORw0KGgo"), "{preview}");
    let ends = events
        .iter()
        .filter(|event| ["done", "failed", "cancelled"].contains(&event["event"].as_str().unwrap()));
    assert_eq!(ends.count(), 1);
}

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    let daemon = place.start(&["--header-timeout", "0.3", "--body-timeout", "0.3"]);
    let with = |key: &str, value: Value| {
        let mut body = picture(1, 1);
        body[key] = value;
        daemon.ask("POST", "/v1/jobs", "", &body.to_string())
    };
    let cases = [
        (with("cfg", json!(1)), 400, "bad_request"),
        (with("steps", json!("many")), 400, "bad_request"),
        (daemon.ask("POST", "/v1/jobs", "", "{"), 400, "bad_request"),
        (daemon.ask("POST", "/v1/jobs", "", "{}"), 400, "bad_request"),
        (daemon.ask("POST", "/v1/jobs", "idempotency-key: \r\n", "{\"prompt\":\"a\"}"), 400, "bad_request"),
        (daemon.get("/v1/jobs/0/events?from=x"), 400, "bad_request"),
        (daemon.get("/v1/jobs/0"), 404, "not_found"),
        (daemon.get("/v1/jobs/0/image"), 404, "not_found"),
        (daemon.ask("DELETE", "/v1/jobs/0", "", ""), 404, "not_found"),
        (daemon.get("/"), 404, "not_found"),
        (daemon.get("/v1/jobs/../../etc/passwd"), 404, "not_found"),
        (daemon.ask("PUT", "/v1/jobs", "", "{}"), 405, "method_not_allowed"),
        (with("prompt", json!("x".repeat(70_000))), 413, "too_large"),
        (with("prompt", json!("x".repeat(4097))), 422, "prompt_too_long"),
        (with("negative", json!("x".repeat(4097))), 422, "prompt_too_long"),
        (with("width", json!(17)), 422, "unsupported_size"),
        (with("height", json!(0)), 422, "unsupported_size"),
        (with("width", json!(1u64 << 40)), 422, "unsupported_size"),
        (with("steps", json!(0)), 422, "invalid_value"),
        (with("steps", json!(1001)), 422, "invalid_value"),
        (with("guidance", json!(1e38)), 422, "invalid_value"),
        (with("sampler", json!("magic")), 422, "invalid_value"),
        (
            daemon.ask("POST", "/v1/jobs", "", r#"{"prompt":"a","sampler":"lcm","steps":51}"#),
            422,
            "invalid_value",
        ),
        (with("model", json!("none")), 422, "invalid_value"),
        (with("model", json!("../models/tiny")), 422, "invalid_value"),
        (with("seed", json!(1u64 << 53)), 422, "invalid_value"),
        (with("timeout_ms", json!(0)), 422, "invalid_value"),
        (daemon.send(b"GET /v1/health HTTP/1.1\r\nhost: x"), 408, "timeout"),
        (daemon.send(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"), 408, "timeout"),
    ];
    for (answer, status, code) in cases {
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().len() > 10);
    }
    assert_eq!(daemon.get("/v1/jobs").json()["jobs"], json!([]));
    let long = format!("GET /v1/health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(daemon.send(long.as_bytes()).status, 431);
}

#[test]
fn an_oversized_body_gets_its_answer_whether_or_not_it_waits_for_it() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let body = format!("{{\"prompt\":\"{}\"}}", "x".repeat(3 << 20));
    for headers in ["", "expect: 100-continue\r\n"] {
        let mut stream = daemon.connect();
        let head =
            format!("POST /v1/jobs HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        if headers.is_empty() {
            stream.write_all(body.as_bytes()).unwrap();
        }
        let answer = read(&mut stream);
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn the_same_key_is_the_same_job() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let ask = |key: &str, body: &Value| {
        daemon.ask("POST", "/v1/jobs", &format!("idempotency-key: {key}\r\n"), &body.to_string())
    };
    let mut body = picture(1, 1);
    body.as_object_mut().unwrap().remove("seed");
    let first = ask("one", &body).json();
    daemon.end(first["id"].as_str().unwrap());
    assert_eq!(ask("one", &body).json()["id"], first["id"]);
    assert_ne!(ask("two", &body).json()["id"], first["id"]);
    let other = ask("one", &picture(2, 1));
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_mismatch"));
    daemon.kill();
    let daemon = place.start(&[]);
    let again = daemon.ask("POST", "/v1/jobs", "idempotency-key: one\r\n", &body.to_string()).json();
    assert_eq!([&again["id"], &again["state"]], [&first["id"], &json!("done")]);
}

#[test]
fn a_full_queue_refuses_with_a_hint() {
    let place = Place::new();
    let daemon = place.start(&["--queue", "3", "--queue-per-uid", "2"]);
    let running = daemon.submit(&picture(1000, 1));
    daemon.wait(&running, |job| job["state"] == "running");
    let waiting = [daemon.submit(&picture(1, 2)), daemon.submit(&picture(1, 3))];
    assert_eq!(daemon.job(&waiting[1])["position"], 1);
    let refused = daemon.ask("POST", "/v1/jobs", "", &picture(1, 4).to_string());
    assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"));
    assert!(refused.json()["error"]["retry_after_ms"].is_u64() && refused.header("retry-after").is_some());
    // A cancelled job makes room, whether it waits or is being drawn.
    let cancel = |id: &str| daemon.ask("DELETE", &format!("/v1/jobs/{id}"), "", "").json();
    assert_eq!(cancel(&waiting[0])["state"], "cancelled");
    assert_eq!(cancel(&running)["state"], "cancelled");
    assert_eq!(daemon.end(&waiting[1])["event"], "done");
    assert_eq!(cancel(&waiting[1])["state"], "done");
    assert_eq!(daemon.end(&waiting[0])["event"], "cancelled");
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_with_an_offer() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let first = daemon.submit(&picture(200, 1));
    daemon.end(&first);
    let mut body = picture(1000, 2);
    let needed = daemon.ask("POST", "/v1/jobs", "", &body.to_string()).json();
    daemon.ask("DELETE", &format!("/v1/jobs/{}", needed["id"].as_str().unwrap()), "", "");
    body["timeout_ms"] = json!(needed["eta_ms"].as_u64().unwrap() / 2);
    let refused = daemon.ask("POST", "/v1/jobs", "", &body.to_string());
    assert_eq!((refused.status, refused.code().as_str()), (408, "timeout"), "{refused:?}");
    let steps = refused.json()["error"]["offer"]["steps"].as_u64().unwrap();
    assert!((4..1000).contains(&steps), "{steps}");
}

#[test]
fn a_job_that_is_late_fails() {
    let place = Place::new();
    let daemon = place.start(&[]);
    // Not measured yet, so nothing can be promised.
    let blocking = daemon.submit(&json!({ "prompt": "", "width": 32, "height": 32, "steps": 1000 }));
    let mut body = picture(1000, 2);
    body["timeout_ms"] = json!(300);
    let answer = daemon.ask("POST", "/v1/jobs", "", &body.to_string());
    if answer.status == 202 {
        let end = daemon.end(answer.json()["id"].as_str().unwrap());
        assert_eq!([&end["event"], &end["error"]["code"]], ["failed", "timeout"]);
    } else {
        assert_eq!(answer.code(), "timeout");
    }
    daemon.ask("DELETE", &format!("/v1/jobs/{blocking}"), "", "");
}

#[test]
fn accepted_jobs_outlive_a_crash_and_come_out_the_same() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let ids: Vec<String> = (0..4).map(|seed| daemon.submit(&picture(300, seed))).collect();
    daemon.wait(&ids[1], |job| job["state"] == "running");
    daemon.kill();
    let daemon = place.start(&[]);
    let hashes: Vec<Value> = ids.iter().map(|id| daemon.end(id)["sha256"].clone()).collect();
    for (seed, hash) in hashes.iter().enumerate() {
        let alone = daemon.submit(&picture(300, seed as u64));
        assert_eq!(daemon.end(&alone)["sha256"], *hash, "seed {seed}");
    }
    let ended = |id: &String| {
        let records = journal(&place.path("state/journal"));
        records.iter().filter(|record| record["record"] == "ended" && record["id"] == **id).count()
    };
    assert!(ids.iter().all(|id| ended(id) == 1));
}

#[test]
fn a_job_goes_on_where_it_was() {
    let place = Place::new();
    // One without memory, one with fresh noise in every step, one that remembers earlier steps.
    for sampler in ["ddim", "ddpm", "unipc"] {
        goes_on_where_it_was(&place, sampler);
    }
}

fn goes_on_where_it_was(place: &Place, sampler: &str) {
    let flags = ["--save-every", "0", "--drain", "0"];
    let daemon = place.start(&flags);
    let mut body = picture(600, 5);
    body["guidance"] = json!(3.0);
    body["sampler"] = json!(sampler);
    let id = daemon.submit(&body);
    let step = daemon.wait(&id, |job| job["step"].as_u64() > Some(20))["step"].as_u64().unwrap();
    assert_eq!(daemon.stop(), Some(0));
    let daemon = place.start(&flags);
    let events = daemon.events(&id, 2 * step);
    assert_eq!(events.last().unwrap()["event"], "done");
    let records = journal(&place.path("state/journal"));
    let started: Vec<u64> = records
        .iter()
        .filter(|record| record["record"] == "started" && record["id"] == *id)
        .map(|record| record["step"].as_u64().unwrap())
        .collect();
    assert!(started.last().unwrap() >= &step, "{started:?} after step {step}");
    let alone = daemon.submit(&body);
    assert_eq!(daemon.end(&alone)["sha256"], events.last().unwrap()["sha256"]);
    assert_eq!(std::fs::read_dir(place.path("state/latents")).unwrap().count(), 0);
}

#[test]
fn a_job_that_ends_the_daemon_twice_has_failed() {
    let place = Place::new();
    let first = {
        let daemon = place.start(&["--save-every", "100"]);
        let id = daemon.submit(&picture(1000, 1));
        daemon.wait(&id, |job| job["step"].as_u64() > Some(2));
        daemon.kill();
        id
    };
    let daemon = place.start(&["--save-every", "100"]);
    daemon.wait(&first, |job| job["step"].as_u64() > Some(2));
    daemon.kill();
    let daemon = place.start(&[]);
    let job = daemon.job(&first);
    assert_eq!([&job["state"], &job["error"]["code"]], ["failed", "crashed_repeatedly"]);
    assert_eq!(daemon.end(&daemon.submit(&picture(1, 1)))["event"], "done");
}

#[test]
fn a_stopping_daemon_finishes_the_picture_in_hand_and_keeps_the_others() {
    let place = Place::new();
    let daemon = place.start(&["--drain", "60"]);
    let ids = [daemon.submit(&picture(300, 1)), daemon.submit(&picture(2, 2))];
    daemon.wait(&ids[0], |job| job["step"].as_u64() > Some(2));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!place.path("socket").exists());
    let ended = |id: &str| {
        let records = journal(&place.path("state/journal"));
        records.iter().any(|record| record["record"] == "ended" && record["id"] == *id)
    };
    assert_eq!([ended(&ids[0]), ended(&ids[1])], [true, false]);
    let daemon = place.start(&[]);
    assert_eq!(daemon.job(&ids[0])["state"], "done");
    assert_eq!(daemon.end(&ids[1])["event"], "done");
}

#[test]
fn old_pictures_make_room() {
    let place = Place::new();
    let daemon = place.start(&["--keep-jobs", "2"]);
    let ids: Vec<String> = (0..4)
        .map(|seed| {
            let id = daemon.submit(&picture(1, seed));
            daemon.end(&id);
            id
        })
        .collect();
    let kept = |id: &str| daemon.get(&format!("/v1/jobs/{id}/image")).status == 200;
    // An end is told first, and room is made then.
    let begun = Instant::now();
    while kept(&ids[1]) {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(ids.iter().map(|id| kept(id)).collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!(std::fs::read_dir(place.path("state/images")).unwrap().count(), 2);
    daemon.kill();
    let daemon = place.start(&[]);
    assert_eq!(daemon.get("/v1/jobs").json()["jobs"].as_array().unwrap().len(), 2);
}

#[test]
fn connections_are_limited() {
    let place = Place::new();
    let daemon = place.start(&["--connections-per-uid", "2", "--header-timeout", "30"]);
    let pause = || std::thread::sleep(Duration::from_millis(200));
    pause();
    let open = [daemon.connect(), daemon.connect()];
    pause();
    let refused = daemon.get("/v1/health");
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_connections"));
    drop(open);
    pause();
    assert_eq!(daemon.get("/v1/health").status, 200);
}

#[test]
fn what_the_machine_does_not_have_is_refused_with_figures() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("thermal/thermal_zone0")).unwrap();
    std::fs::write(place.path("thermal/thermal_zone0/temp"), "90500\n").unwrap();
    let cases = [
        (["--reserve-memory", "900T"], 503, "insufficient_memory"),
        (["--reserve-disk", "900T"], 507, "no_space"),
        (["--thermal", "thermal"], 503, "thermal"),
    ];
    for (flags, status, code) in cases {
        let daemon = place.start(&flags.map(|flag| if flag == "900T" { "900000G" } else { flag }));
        let refused = daemon.ask("POST", "/v1/jobs", "", &picture(1, 1).to_string());
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{refused:?}");
        assert!(refused.json()["error"]["retry_after_ms"].is_u64());
    }
}

#[test]
fn a_damaged_model_is_refused_and_a_new_one_taken() {
    let place = Place::new();
    let model = place.path("models/tiny.tintype");
    let good = std::fs::read(&model).unwrap();
    let mut bad = good.clone();
    let last = bad.len() - 70;
    bad[last] ^= 1;
    let daemon = place.start(&[]);
    let install = |bytes: &[u8]| {
        std::fs::write(place.path("new"), bytes).unwrap();
        std::fs::rename(place.path("new"), &model).unwrap();
    };
    install(&bad);
    let end = daemon.end(&daemon.submit(&picture(1, 1)));
    assert_eq!([&end["event"], &end["error"]["code"]], ["failed", "model_corrupt"]);
    let refused = daemon.ask("POST", "/v1/jobs", "", &picture(1, 1).to_string());
    assert_eq!((refused.status, refused.code().as_str()), (503, "model_corrupt"));
    install(&good[..good.len() / 2]);
    let refused = daemon.ask("POST", "/v1/jobs", "", &picture(1, 1).to_string());
    assert_eq!((refused.status, refused.code().as_str()), (503, "model_corrupt"));
    install(&good);
    assert_eq!(daemon.end(&daemon.submit(&picture(1, 1)))["event"], "done");
}

#[test]
fn a_model_that_shrinks_under_its_feet_ends_the_daemon_with_75() {
    let place = Place::new();
    let mut daemon = place.start(&[]);
    daemon.end(&daemon.submit(&picture(1, 1)));
    let id = daemon.submit(&picture(1000, 1));
    daemon.wait(&id, |job| job["step"].as_u64() > Some(1));
    let file = std::fs::OpenOptions::new().write(true).open(place.path("models/tiny.tintype")).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(daemon.child.wait().unwrap().code(), Some(75));
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let place = Place::new();
    let fails = |more: &[&str], code: i32, says: &str| {
        let output = place.command(more).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    };
    let daemon = place.start(&[]);
    fails(&["--state", "other"], 1, "another daemon listens at socket");
    fails(&["--socket", "other"], 1, "another daemon uses the state folder state");
    daemon.kill();
    fails(&["--models", "state"], 3, "there is no usable *.tintype file");
    fails(&["--models", "nowhere"], 3, "cannot be read");
    fails(&["--default-model", "emoji"], 3, "there is no model `emoji`");
    fails(&["--queue", "256"], 2, "--queue 256 is out of range");
    fails(&["--drain=-1"], 2, "--drain -1 is out of range");
    fails(
        &["--state", "models/tiny.tintype/state"],
        1,
        "the state folder models/tiny.tintype/state cannot be used",
    );
    std::fs::write(place.path("letter"), "dear").unwrap();
    fails(&["--socket", "letter"], 1, "is no socket");
    fails(&["--socket", &"x".repeat(200)], 1, "200 bytes, expected at most 107");
    std::fs::write(place.path("state/journal"), "something else entirely").unwrap();
    fails(&[], 1, "is no journal");
    assert_eq!(std::fs::read(place.path("state/journal")).unwrap(), b"something else entirely");
}

#[test]
fn a_torn_journal_loses_its_torn_record_alone() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let ids = [daemon.submit(&picture(1, 1)), daemon.submit(&picture(1, 2))];
    ids.iter().for_each(|id| assert_eq!(daemon.end(id)["event"], "done"));
    daemon.kill();
    let path = place.path("state/journal");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let daemon = place.start(&[]);
    assert_eq!(daemon.job(&ids[0])["state"], "done");
    // The end of the second was torn, so it is drawn again, and comes out the same.
    assert_eq!(daemon.end(&ids[1])["event"], "done");
    daemon.kill();
    let records = journal(&path);
    assert_eq!(records.iter().filter(|record| record["record"] == "ended").count(), 2);
}

#[test]
fn a_socket_that_a_dead_daemon_left_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.path("socket")).unwrap());
    let daemon = place.start(&[]);
    assert_eq!(daemon.get("/v1/health").json()["status"], "ok");
    let mode = place.path("socket").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn figures_for_prometheus() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.end(&daemon.submit(&picture(2, 1)));
    let answer = daemon.get("/v1/metrics");
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "tintype_jobs_accepted_total 1",
        "tintype_jobs_ended_total{state=\"done\"} 1",
        "tintype_queue_jobs 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        let family = name.split('{').next().unwrap();
        assert!(text.contains(&format!("# TYPE {family} ")), "{family} has no type");
    }
}

#[test]
fn health_is_answered_while_a_picture_is_drawn() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let id = daemon.submit(&picture(1000, 1));
    daemon.wait(&id, |job| job["state"] == "running");
    let health = daemon.get("/v1/health").json();
    assert_eq!([&health["status"], &health["running"]], [&json!("ok"), &json!(id)]);
    assert_eq!(health["queue"]["waiting"], 0);
    let models = daemon.get("/v1/models").json();
    assert_eq!(
        [&models["models"][0]["name"], &models["models"][0]["default"]],
        [&json!("tiny"), &json!(true)]
    );
}

#[test]
fn the_programs_own_client() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tintype"))
            .args(args)
            .args(["--socket", "socket"])
            .current_dir(place.folder.path())
            .env_remove("RUST_LOG")
            .output()
            .unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), out, err)
    };
    let small = ["--width", "16", "--height", "16", "--steps", "2", "--seed", "9"];
    let (code, out, err) = run(&[&["submit", "a red box", "-o", "a.png"], &small[..]].concat());
    assert_eq!((code, out.as_str()), (Some(0), "a.png (seed 9)\n"), "{err}");
    assert!(std::fs::read(place.path("a.png")).unwrap().starts_with(b"\x89PNG"));

    let (_, out, _) = run(&[&["submit", "a red box", "--json"], &small[..]].concat());
    let id = serde_json::from_str::<Value>(&out).unwrap()["id"].as_str().unwrap().to_owned();
    let (code, out, _) = run(&["watch", &id, "--json", "-o", "b.png"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((code, &last["event"]), (Some(0), &json!("done")));
    assert_eq!(std::fs::read(place.path("a.png")).unwrap(), std::fs::read(place.path("b.png")).unwrap());
    let (_, out, _) = run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&status["status"], status["jobs"].as_array().unwrap().len()), (&json!("ok"), 2));
    assert!(run(&["status"]).1.contains(&id));

    let slow = ["--width", "16", "--height", "16", "--steps", "1000", "--json"];
    let (_, out, _) = run(&[&["submit", "a red box"], &slow[..]].concat());
    let id = serde_json::from_str::<Value>(&out).unwrap()["id"].as_str().unwrap().to_owned();
    let (code, out, _) = run(&["cancel", &id]);
    assert!(code == Some(0) && out.contains("cancelled"), "{out}");
    let (code, _, err) = run(&["watch", &id]);
    assert!(code == Some(1) && err.contains("was cancelled"), "{err}");
    let (code, _, err) = run(&["submit", "a red box", "--width", "17"]);
    assert!(code == Some(2) && err.contains("17 px is not possible"), "{err}");
    assert_eq!(run(&["status", "nothing"]).0, Some(1));
    drop(daemon);
    let (code, _, err) = run(&["status"]);
    assert!(code == Some(4) && err.contains("no daemon answers at socket"), "{err}");
}

#[test]
fn the_document_says_what_the_daemon_does() {
    let (place, document) = (Place::new(), OpenApi::read());
    let daemon = place.start(&[]);
    let done = daemon.submit(&picture(1, 1));
    daemon.end(&done);
    let ids = [done.as_str(), "0"];
    let none = [String::new()];
    let bodies = [picture(1, 1), json!({}), json!({ "prompt": "", "steps": 0 })].map(|body| body.to_string());
    for (path, method) in document.operations() {
        for id in ids {
            for body in if method == "POST" { &bodies[..] } else { &none[..] } {
                let answer = daemon.ask(&method, &path.replace("{id}", id), "", body);
                let is_json = answer.header("content-type") == Some("application/json");
                let value = if is_json { answer.json() } else { Value::Null };
                document.allows(&method, &path, answer.status, &value);
            }
        }
        let other = daemon.ask("PATCH", &path.replace("{id}", "0"), "", "");
        assert_eq!(other.status, 405, "{path}");
        assert!(other.header("allow").unwrap().split(", ").any(|allowed| allowed == method), "{path}");
    }
    for line in daemon.events(&done, 0) {
        document.conforms(&line, document.schema("Event"), "events");
    }
}

#[test]
fn the_document_has_the_words_of_the_protocol() {
    let document = OpenApi::read();
    let codes = document.schema("ErrorDetail")["properties"]["code"]["enum"].clone();
    assert_eq!(codes, serde_json::to_value(ErrorCode::ALL).unwrap());
    let full = JobRequest {
        negative: "b".into(),
        model: Some("m".into()),
        width: Some(1),
        height: Some(1),
        steps: Some(1),
        guidance: Some(1.0),
        seed: Some(1),
        sampler: Some("ddim".into()),
        timeout_ms: Some(1),
        preview: PreviewMode::Inline,
        prompt: "a".into(),
    };
    let full = serde_json::to_value(full).unwrap();
    let schema = document.schema("JobRequest");
    document.conforms(&full, schema, "request");
    let names = serde_json::to_value(Sampler::ALL.map(Sampler::name)).unwrap();
    assert_eq!(schema["properties"]["sampler"]["enum"], names);
    assert_eq!(full.as_object().unwrap().len(), schema["properties"].as_object().unwrap().len());
}

#[test]
fn pictures_that_show_what_is_blocked_are_not_given_out() {
    let place = Place::new();
    let shipped = fixture::root("models/emoji.tintype");
    std::fs::copy(shipped, place.path("models/emoji.tintype")).unwrap();
    std::fs::write(place.path("block.txt"), "-1 a strawberry").unwrap();
    let daemon = place.start(&["--block", "block.txt", "--default-model", "emoji"]);
    let strawberry = json!({ "prompt": "a strawberry", "steps": 2, "seed": 1 });
    let id = daemon.submit(&strawberry);
    let end = daemon.end(&id);
    assert_eq!([&end["event"], &end["error"]["code"]], ["failed", "blocked"]);
    assert!(end["error"]["message"].as_str().unwrap().contains("a strawberry"), "{end}");
    assert_eq!(daemon.get(&format!("/v1/jobs/{id}/image")).status, 404);
    assert_eq!(std::fs::read_dir(place.path("state/images")).unwrap().count(), 0);
    let answer = daemon.ask("POST", "/v1/generate", "", &strawberry.to_string());
    OpenApi::read().allows("POST", "/v1/generate", answer.status, &answer.json());
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (422, &json!("blocked")));

    let mut seen = strawberry.clone();
    seen["preview"] = json!("inline");
    let events = daemon.events(&daemon.submit(&seen), 0);
    assert!(events.iter().all(|event| event["event"] != "preview"), "nobody sees it before it is judged");

    // The other model has nothing to judge with.
    let mut unjudged = picture(2, 1);
    unjudged["model"] = json!("tiny");
    let end = daemon.end(&daemon.submit(&unjudged));
    assert_eq!(end["error"]["code"], "blocked");
    assert!(end["error"]["message"].as_str().unwrap().contains("image_encoder"), "{end}");
}

#[test]
fn a_list_that_cannot_be_read_starts_no_daemon() {
    let place = Place::new();
    let start = |list: &str| place.command(&["--block", list]).output().unwrap();
    std::fs::write(place.path("empty.txt"), "# nothing").unwrap();
    for (list, says) in [("none.txt", "cannot read none.txt"), ("empty.txt", "names nothing to block")] {
        let output = start(list);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(says), "{message}");
    }
    std::fs::write(place.path("good.txt"), "0.9 a gun").unwrap();
    drop(place.start(&["--block", "good.txt"]));
}
