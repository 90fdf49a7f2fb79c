//! Pictures drawn again, taken up again, previewed, chosen and blocked.

use super::*;
use serde_json::Value;

const SHIPPED: &str = "models/emoji.tintype";

fn json(output: &Output) -> Value {
    serde_json::from_str(&works(output)).unwrap()
}

/// The shipped model draws, in few steps.
fn draw_shipped(place: &Place, more: &[&str]) -> Output {
    let model = fixture::root(SHIPPED);
    let args = ["generate", "a glossy strawberry", "--steps", "3", "--seed", "5", "--model"];
    place.run(args.iter().map(OsStr::new).chain([model.as_os_str()]).chain(more.iter().map(OsStr::new)))
}

#[test]
fn a_picture_is_drawn_again_from_its_manifest() {
    let place = Place::new();
    works(&place.draw(&[
        "--seed",
        "7",
        "--sampler",
        "tcd",
        "--eta",
        "0.5",
        "--negative",
        "blue",
        "-o",
        "a.png",
    ]));
    let check =
        |name: &str, more: &[&str]| place.run([&["replay", name, "--model", "tiny.tintype"], more].concat());
    let said = works(&check("a.png", &["--check"]));
    assert!(said.contains("a.png: identical"), "{said}");
    assert_eq!(place.names(), ["a.png", "tiny.tintype"], "nothing is written");
    let report = json(&check("a.png", &["-o", "b.png", "--json"]));
    assert_eq!((&report["identical"], &report["differing_bytes"]), (&Value::Bool(true), &0.into()));
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("a.png"), bytes("b.png"));
    assert_eq!(report["output"]["path"], "b.png");

    let other = changed(&place.path("a.png"));
    std::fs::write(place.path("other.png"), other).unwrap();
    fails(&check("other.png", &["--check"]), 1, &["other.png: not identical", "2 bytes", "up to 1 of 255"]);
    let said = works(&check("other.png", &["-o", "c.png"]));
    assert!(said.contains("not identical"));
    assert_eq!(bytes("a.png"), bytes("c.png"));
}

/// The picture with two bytes of its pixels changed, and its texts as they were.
fn changed(path: &Path) -> Vec<u8> {
    let mut decoder =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
    decoder.next_frame(&mut pixels).unwrap();
    pixels[0] ^= 1;
    pixels[9] ^= 1;
    let info = decoder.info();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, info.width, info.height);
    encoder.set_color(png::ColorType::Rgb);
    for text in &info.uncompressed_latin1_text {
        encoder.add_text_chunk(text.keyword.clone(), text.text.clone()).unwrap();
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn words_count_as_the_syntax_says_also_when_drawn_again() {
    let place = Place::new();
    let draw = |prompt: &str, name: &str, more: &[&str]| {
        let args = ["generate", prompt, "--steps", "2", "--seed", "1", "--model", "tiny.tintype", "-o", name];
        place.run([&args[..], &["--width", "16", "--height", "16"], more].concat())
    };
    let replayed = |name: &str| {
        works(&place.run(["replay", name, "--check", "--model", "tiny.tintype"]));
        std::fs::read(place.path(name)).unwrap()
    };
    works(&draw("a (red:1.5) box", "a.png", &["--syntax", "a1111"]));
    works(&draw("a (red:1.5) box", "b.png", &["--syntax", "plain"]));
    works(&draw("a (red:1.5) box", "c.png", &[]));
    works(&draw("a (red:1.5) box", "d.png", &["--clip-skip", "1"]));
    let [a, b, c, d] = ["a.png", "b.png", "c.png", "d.png"].map(replayed);
    assert_eq!(b, c, "plain is the default");
    assert!(a != b && b != d && a != d);
    let said = String::from_utf8_lossy(&d).into_owned();
    assert!(said.contains("Clip skip: 2") && said.contains("\"clip_skip\":1"));
    assert!(String::from_utf8_lossy(&a).contains("\"syntax\":\"a1111\""));
    fails(&draw("a (red:1.5.1) box", "e.png", &["--syntax", "a1111"]), 2, &[":1.5.1)", "(word:1.3)"]);
    fails(&draw("a box", "e.png", &["--clip-skip", "9"]), 2, &["2 layers", "9"]);
    fails(&draw(&"x".repeat(80), "e.png", &["--syntax", "a1111"]), 2, &["154 tokens", "77"]);
    assert!(!place.path("e.png").exists());

    // The shipped model's UNet takes prompts of any length.
    let model = fixture::root(SHIPPED);
    let long = "a glossy strawberry on a blue background, ".repeat(12);
    let args = ["generate", &long, "--syntax", "a1111", "--steps", "1", "-o", "long.png", "--model"];
    let output = place.run(args.map(OsStr::new).into_iter().chain([model.as_os_str()]));
    works(&output);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("no effect"), "nothing is dropped");
}

#[test]
fn large_maps_are_divided_again_as_they_were() {
    let place = Place::new();
    let size = ["--width", "256", "--height", "128", "--seed", "1"];
    for (name, how) in
        [("a.png", ["--tile", "16"]), ("b.png", ["--tile", "blend:64"]), ("c.png", ["--memory", "16M"])]
    {
        works(&place.draw(&[&size[..], &how, &["--threads", "2", "-o", name]].concat()));
        let args = ["replay", name, "--check", "--model", "tiny.tintype", "--threads", "1"];
        works(&place.run(args));
    }
    let whole = String::from_utf8_lossy(&std::fs::read(place.path("a.png")).unwrap()).into_owned();
    assert!(whole.contains("\"division\":{\"tile\":{\"rows\":16}"));
}

#[test]
fn pictures_from_given_ones_need_these_again() {
    let place = Place::new();
    for name in ["picture.png", "mask.png"] {
        std::fs::copy(fixture::data("given").join(name), place.path(name)).unwrap();
    }
    std::fs::write(place.path("noise.npy"), npy(&[1, 4, 4, 4], 0.5)).unwrap();
    let given = ["--init-image", "picture.png", "--mask", "mask.png"];
    works(
        &place.draw(&[&given[..], &["--strength", "0.6", "--steps", "3", "--latents", "noise.npy"]].concat()),
    );
    let check = |more: &[&str]| {
        place.run([&["replay", "out.png", "--check", "--model", "tiny.tintype"], more].concat())
    };
    works(&check(&[&given[..], &["--latents", "noise.npy"]].concat()));
    fails(&check(&given), 2, &["noise that was given", "--latents"]);
    fails(&check(&["--latents", "noise.npy"]), 2, &["another picture and a mask", "--init-image"]);
    let one = ["--latents", "noise.npy", "--init-image", "picture.png"];
    fails(&check(&one), 2, &["the same", "--mask"]);
}

#[test]
fn pictures_that_cannot_be_drawn_again() {
    let place = Place::new();
    works(&place.draw(&["--seed", "7", "-o", "a.png"]));
    let replay = |name: &str, model: &str| place.run(["replay", name, "-o", "no.png", "--model", model]);
    let source = fixture::data("topologies/sd15-opset17-fixed");
    works(&place.run(["import", source.to_str().unwrap(), "-o", "other.tintype"]));
    fails(
        &replay("a.png", "other.tintype"),
        3,
        &["drawn with the model tiny", "this is sd15-opset17-fixed", "--model"],
    );
    fails(&replay("none.png", "tiny.tintype"), 1, &["none.png"]);
    std::fs::copy(fixture::data("given/picture.png"), place.path("foreign.png")).unwrap();
    fails(&replay("foreign.png", "tiny.tintype"), 1, &["foreign.png", "no manifest", "not drawn by tintype"]);
    std::fs::copy(fixture::data("pictures/turned.jpg"), place.path("b.jpg")).unwrap();
    fails(&replay("b.jpg", "tiny.tintype"), 1, &["b.jpg", "no PNG"]);

    let whole = std::fs::read(place.path("a.png")).unwrap();
    std::fs::write(place.path("cut.png"), &whole[..whole.len() - 40]).unwrap();
    fails(&replay("cut.png", "tiny.tintype"), 1, &["cut.png", "cannot decode"]);
    let with = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&chunk_of(&whole)).into_owned();
        with_manifest(&whole, &text.replacen(from, to, 1))
    };
    std::fs::write(place.path("damaged.png"), with("\"seed\":7", "\"seed\":")).unwrap();
    fails(&replay("damaged.png", "tiny.tintype"), 1, &["damaged.png", "manifest cannot be read"]);
    std::fs::write(place.path("newer.png"), with("\"version\":\"", "\"lens\":1,\"version\":\"9")).unwrap();
    fails(&replay("newer.png", "tiny.tintype"), 1, &["newer.png", "lens", "made by version 9"]);
    std::fs::write(place.path("never.png"), with("\"steps\":1", "\"steps\":0")).unwrap();
    fails(&replay("never.png", "tiny.tintype"), 2, &["0 steps"]);
    std::fs::write(place.path("old.png"), with("\"version\":\"0", "\"version\":\"00")).unwrap();
    let output = replay("old.png", "tiny.tintype");
    assert!(String::from_utf8_lossy(&output.stderr).contains("version 00"), "{output:?}");
    assert!(works(&output).contains("identical"));
}

/// The text of a picture's manifest.
fn chunk_of(png: &[u8]) -> Vec<u8> {
    tintype::output::read_text(png, "tintype").unwrap().unwrap().into_bytes()
}

/// A picture with another manifest.
fn with_manifest(png: &[u8], manifest: &str) -> Vec<u8> {
    let picture = tintype::picture::read(png).unwrap();
    tintype::output::encode_png(&picture, &[("tintype", manifest.to_owned())]).unwrap()
}

#[test]
fn a_run_goes_on_from_its_checkpoint_to_the_same_bytes() {
    let place = Place::new();
    for (sampler, every) in [("unipc", "1"), ("euler-a", "5"), ("ddim", "1")] {
        let steps = ["--steps", "40", "--sampler", sampler, "--feature-cache", every, "--seed", "3"];
        let run = [&steps[..], &["--width", "32", "--height", "32", "-o"]].concat();
        works(&place.draw(&[&run[..], &["whole.png"]].concat()));
        let mut child = fixture::program(place.folder.path())
            .args(["generate", "a red box", "--model", "tiny.tintype", "--checkpoint", "state"])
            .args(&run)
            .arg("resumed.png")
            .spawn()
            .unwrap();
        while !place.path("state").exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            place.path("state").exists() && !place.path("resumed.png").exists(),
            "it was killed half-way"
        );
        // The seed is the state's if none is given.
        let without_seed: Vec<&str> =
            run.iter().copied().filter(|arg| !["--seed", "3"].contains(arg)).collect();
        works(&place.draw(&[&without_seed[..], &["resumed.png", "--checkpoint", "state"]].concat()));
        assert!(!place.path("state").exists(), "it is deleted when the picture is there");
        let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
        assert_eq!(bytes("whole.png"), bytes("resumed.png"), "{sampler}");
        std::fs::remove_file(place.path("resumed.png")).unwrap();
    }
}

/// A state of a run that was broken off after its first step.
fn keep_state(place: &Place) {
    use tintype::pipeline::{Additions, Manifest, Request, encode_state};
    let bundle = tintype::bundle::Bundle::open(&place.model).unwrap();
    let mut request = Request::new(&bundle, tintype::text::Prompt::new("a red box").unwrap(), 3).unwrap();
    (request.size.width_px, request.size.height_px, request.steps) = (16, 16, 4);
    let arithmetic = Level::detect().arithmetic();
    let identity = Manifest::of_request(&request, &bundle, &Additions::default(), arithmetic).to_json();
    let latents = tintype::tensor::Latents::new(vec![0.1; 64], 4, 4, 4).unwrap();
    std::fs::write(place.path("state"), encode_state(&identity, 1, &latents, &[])).unwrap();
}

#[test]
fn states_of_other_pictures_are_refused() {
    let place = Place::new();
    let draw = |more: &[&str]| {
        keep_state(&place);
        place.draw(&[&["--checkpoint", "state", "-o", "no.png"], more].concat())
    };
    works(&draw(&["--steps", "4"]));
    std::fs::remove_file(place.path("no.png")).unwrap();
    fails(&draw(&["--steps", "5"]), 2, &["state: ", "steps is 4 there and 5 here", "delete it"]);
    fails(&draw(&["--steps", "4", "--seed", "9"]), 2, &["seed is 3 there and 9 here"]);
    fails(&draw(&["--steps", "4", "--sampler", "lcm"]), 2, &["sampler is \"ddim\" there and \"lcm\" here"]);
    fails(&draw(&["--steps", "4", "-n", "2"]), 2, &["--checkpoint", "-n"]);
    let source = fixture::data("tiny");
    works(&place.run(["import", source.to_str().unwrap(), "-o", "exact.tintype", "--weights", "f32"]));
    keep_state(&place);
    let args = ["generate", "a red box", "--model", "exact.tintype", "--checkpoint", "state", "--steps", "4"];
    fails(&place.run(args.iter().chain(&["--width", "16", "--height", "16"])), 2, &["model hash is"]);

    let whole = std::fs::read(place.path("state")).unwrap();
    for damaged in [&whole[..whole.len() - 4], &whole[..10], b"no state at all", &[]] {
        std::fs::write(place.path("state"), damaged).unwrap();
        let output = place.draw(&["--checkpoint", "state", "--steps", "4", "-o", "no.png"]);
        fails(&output, 1, &["state: it is damaged", "delete it"]);
    }
    fails(&place.draw(&["--checkpoint", "no/such/state", "-o", "no.png"]), 1, &["no/such"]);
    assert!(!place.path("no.png").exists());
}

#[test]
fn a_preview_is_replaced_after_every_step() {
    let place = Place::new();
    works(&place.draw(&[
        "--steps",
        "3",
        "--seed",
        "1",
        "--preview",
        "p.png",
        "-o",
        "a.png",
        "--width",
        "32",
    ]));
    assert_eq!(place.names(), ["a.png", "p.png", "tiny.tintype"]);
    let preview = tintype::picture::read(&std::fs::read(place.path("p.png")).unwrap()).unwrap();
    assert_eq!((preview.width_px(), preview.height_px()), (32, 16));
    works(&place.draw(&["--steps", "3", "--seed", "1", "-o", "b.png", "--width", "32"]));
    assert_eq!(std::fs::read(place.path("a.png")).unwrap(), std::fs::read(place.path("b.png")).unwrap());
    fails(&place.draw(&["--preview", "-"]), 2, &["terminal", "name a file"]);
    fails(&place.draw(&["--preview", "no/such/p.png"]), 1, &["no/such"]);
}

#[test]
fn blocked_pictures_are_not_written() {
    let place = Place::new();
    let list = |text: &str| std::fs::write(place.path("block.txt"), text).unwrap();
    list("-1 a strawberry");
    let draw =
        |more: &[&str]| draw_shipped(&place, &[&["--block", "block.txt", "-o", "a.png"], more].concat());
    fails(&draw(&["--save-latents", "z.npy"]), 1, &["seed 5 is blocked", "a strawberry"]);
    let output = draw(&["-n", "2", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), 0);
    assert_eq!((&report["blocked"][1]["seed"], report["blocked"].as_array().unwrap().len()), (&6.into(), 2));
    assert_eq!(report["blocked"][0]["concepts"][0]["concept"], "a strawberry");
    fails(&draw(&["--preview", "p.png"]), 2, &["--preview", "judged"]);
    list("1 a strawberry");
    assert!(json(&draw(&["--json"]))["blocked"].is_null());
    assert_eq!(place.names(), ["a.png", "block.txt", "tiny.tintype"]);
    std::fs::remove_file(place.path("a.png")).unwrap();

    list("# nothing");
    fails(&draw(&[]), 1, &["block.txt", "nothing to block"]);
    list("0.2 a gun\nx a knife");
    fails(&draw(&[]), 1, &["block.txt", "line 2"]);
    list("0.2 a gun");
    fails(&place.draw(&["--block", "none.txt", "-o", "a.png"]), 1, &["none.txt"]);
    fails(&place.draw(&["--block", "block.txt", "-o", "a.png"]), 2, &["cannot be judged", "image_encoder"]);
    assert!(!place.path("a.png").exists());
}

#[test]
fn the_best_of_several_is_kept() {
    let place = Place::new();
    let report = json(&draw_shipped(&place, &["--best-of", "4", "-o", "best.png", "--json"]));
    let scores: Vec<(u64, f64)> = report["best_of"]
        .as_array()
        .unwrap()
        .iter()
        .map(|candidate| (candidate["seed"].as_u64().unwrap(), candidate["score"].as_f64().unwrap()))
        .collect();
    assert_eq!(scores.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), [5, 6, 7, 8]);
    let best = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), 1);
    assert_eq!(report["images"][0]["seed"], best.0);
    assert_eq!(place.names(), ["best.png", "tiny.tintype"]);

    // The same pictures one by one, ranked.
    works(&draw_shipped(&place, &["-n", "4", "-o", "one.png"]));
    let model = fixture::root(SHIPPED);
    let names = ["one-1.png", "one-2.png", "one-3.png", "one-4.png"];
    let args =
        [OsStr::new("rank"), model.as_os_str(), OsStr::new("a glossy strawberry"), OsStr::new("--json")];
    let ranked = json(&place.run(args.into_iter().chain(names.map(OsStr::new))));
    let ranking = ranked["ranking"].as_array().unwrap();
    assert_eq!(ranking[0]["image"], format!("one-{}.png", best.0 - 4));
    let similarities: Vec<f64> = ranking.iter().map(|entry| entry["similarity"].as_f64().unwrap()).collect();
    assert!(similarities.is_sorted_by(|a, b| a >= b));
    assert_eq!(similarities[0], best.1);
    assert_eq!(
        std::fs::read(place.path("best.png")).unwrap(),
        std::fs::read(place.path(ranking[0]["image"].as_str().unwrap())).unwrap()
    );

    fails(&draw_shipped(&place, &["--best-of", "2", "-n", "2"]), 2, &["--best-of", "-n"]);
    fails(&draw_shipped(&place, &["--best-of", "0"]), 2, &["0 pictures"]);
    fails(&place.draw(&["--best-of", "2"]), 2, &["image_encoder"]);
}

#[test]
fn pictures_are_ranked_by_likeness() {
    let place = Place::new();
    let model = fixture::root(SHIPPED);
    works(&draw_shipped(&place, &["-o", "strawberry.png"]));
    std::fs::copy(fixture::data("given/mask.png"), place.path("mask.png")).unwrap();
    let rank = |more: &[&str]| {
        let args = [OsStr::new("rank"), model.as_os_str(), OsStr::new("a strawberry")];
        place.run(args.into_iter().chain(more.iter().map(OsStr::new)))
    };
    let said = works(&rank(&["mask.png", "strawberry.png"]));
    assert!(said.lines().next().unwrap().ends_with("strawberry.png"), "{said}");
    assert_eq!(said.lines().count(), 2);
    fails(&rank(&[]), 2, &["PICTURE"]);
    fails(&rank(&["none.png"]), 1, &["none.png"]);
    std::fs::write(place.path("text.png"), "x").unwrap();
    fails(&rank(&["mask.png", "text.png"]), 1, &["text.png", "PNG, JPEG"]);
    let tiny = place.run(["rank", "tiny.tintype", "a strawberry", "mask.png"]);
    fails(&tiny, 2, &["text_embeds"]);
}
