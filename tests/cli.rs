//! The program as a person runs it: what it prints, where it writes, how it fails.

#[path = "cli/again.rs"]
mod again;
#[path = "cli/explain.rs"]
mod explain;
mod fixture;
#[path = "cli/given.rs"]
mod given;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tintype::import::Precision;
use tintype::kernels::Level;

/// A folder with a model in it, in which the program is run.
struct Place {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = fixture::tiny(folder.path(), Precision::Int8);
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.run_with(&[], args)
    }

    fn run_with<S: AsRef<OsStr>>(
        &self,
        environment: &[(&str, &str)],
        args: impl IntoIterator<Item = S>,
    ) -> Output {
        let mut program = fixture::program(self.folder.path());
        program.args(args).envs(environment.iter().copied()).output().unwrap()
    }

    /// Draws with the model here; small and in one step, unless `more` says otherwise.
    fn draw(&self, more: &[&str]) -> Output {
        let mut args = vec!["generate", "a red box", "--model", self.model.to_str().unwrap()];
        for default in [["--width", "16"], ["--height", "16"], ["--steps", "1"]] {
            if !more.contains(&default[0]) {
                args.extend(default);
            }
        }
        self.run(args.iter().chain(more))
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Asserts an exit code and an error message of one line; returns the message.
#[track_caller]
fn fails(output: &Output, code: i32, says: &[&str]) {
    let message = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    for word in says {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[track_caller]
fn works(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_picture_and_its_json() {
    let place = Place::new();
    let output = place.draw(&["--seed", "7", "-n", "2", "-o", "a.png", "--save-latents", "z.npy", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&works(&output)).unwrap();
    assert_eq!(place.names(), ["a-1.png", "a-2.png", "tiny.tintype", "z-1.npy", "z-2.npy"]);
    let images = report["images"].as_array().unwrap();
    assert_eq!([&images[0]["seed"], &images[1]["seed"]], [7, 8]);
    assert_eq!(images[0]["path"], "a-1.png");
    assert_eq!(images[0]["sha256"].as_str().unwrap().len(), 64);
    for key in ["load", "text", "denoise", "decode", "total"] {
        assert!(report["seconds"][key].as_f64().unwrap() >= 0.0, "{key}");
    }
    let numbers = ["width", "height", "steps", "peak_anon_bytes", "peak_rss_bytes", "threads"];
    assert!(numbers.iter().all(|key| report[key].as_u64().unwrap() > 0), "{report}");
    assert_eq!(report["sampler"], "ddim");
    assert!(report["kernel_level"].is_string() && report["model"].is_string());
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let place = Place::new();
    works(&place.draw(&["--seed", "1", "-o", "a.png", "--save-latents", "a.npy"]));
    works(&place.draw(&["--seed", "1", "-o", "b.png"]));
    works(&place.draw(&["--seed", "2", "-o", "c.png"]));
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("a.png"), bytes("b.png"));
    assert_ne!(bytes("a.png"), bytes("c.png"));
}

#[test]
fn guidance_in_a_part_of_the_steps_is_named_in_the_picture() {
    let place = Place::new();
    let draw = |more: &[&str]| {
        works(&place.draw(&[&["--seed", "1", "--guidance", "4", "--steps", "4"], more].concat()));
        std::fs::read(place.path("out.png")).unwrap()
    };
    let (whole, partly) = (draw(&[]), draw(&["--guidance-interval", "0.25:0.75"]));
    assert_eq!(whole, draw(&["--guidance-interval", "0:1"]));
    let says = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("\"guidance_interval\":[0.25,0.75]");
    assert!(says(&partly) && !says(&whole));
    std::fs::write(place.path("partly.png"), partly).unwrap();
    works(&place.run(["replay", "partly.png", "--check", "--model", "tiny.tintype"]));
}

#[test]
fn what_saves_time_is_named_in_the_picture() {
    let place = Place::new();
    let draw = |more: &[&str]| {
        works(&place.draw(&[&["--seed", "1", "--guidance", "4", "--steps", "5"], more].concat()));
        std::fs::read(place.path("out.png")).unwrap()
    };
    let exact = draw(&[]);
    for (flag, [off, on, wrong], key, said) in [
        ("--feature-cache", ["1", "2", "0"], "\"feature_cache\":2", "a feature cache of 0 steps"),
        ("--token-merging", ["0", "0.5", "0.8"], "\"token_merging\":0.5", "0.8, expected 0 (none) to 0.75"),
    ] {
        let sooner = draw(&[flag, on]);
        assert_eq!(exact, draw(&[flag, off]), "{flag}");
        let says = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(key);
        assert!(says(&sooner) && !says(&exact), "{flag}");
        std::fs::write(place.path("sooner.png"), &sooner).unwrap();
        works(&place.run(["replay", "sooner.png", "--check", "--model", "tiny.tintype"]));
        fails(&place.draw(&[flag, wrong]), 2, &[said]);
    }
}

#[test]
fn every_sampler_draws_its_own_picture_and_is_named_in_it() {
    let place = Place::new();
    let mut latents = std::collections::BTreeMap::new();
    for name in ["ddim", "ddpm", "lcm", "tcd", "euler", "euler-a", "dpmpp-2m", "unipc"] {
        let output = place.draw(&[
            "--sampler",
            name,
            "--steps",
            "4",
            "--seed",
            "1",
            "--save-latents",
            "z.npy",
            "--json",
        ]);
        let report: serde_json::Value = serde_json::from_str(&works(&output)).unwrap();
        assert_eq!(report["sampler"], name);
        let picture = String::from_utf8_lossy(&std::fs::read(place.path("out.png")).unwrap()).into_owned();
        assert!(picture.contains(&format!("\"sampler\":\"{name}\"")), "{name}");
        assert_eq!(picture.contains("\"eta\":"), ["ddim", "tcd"].contains(&name), "{name}");
        let twin = latents.insert(std::fs::read(place.path("z.npy")).unwrap(), name);
        assert_eq!(twin, None, "{name} draws the same");
    }
    let picture = String::from_utf8_lossy(&std::fs::read(place.path("out.png")).unwrap()).into_owned();
    assert!(picture.contains("Sampler: UniPC, "));
}

#[test]
fn given_noise_replaces_the_seed() {
    let place = Place::new();
    let noise = place.path("noise.npy");
    std::fs::write(&noise, npy(&[1, 4, 4, 4], 0.5)).unwrap();
    works(&place.draw(&["--latents", "noise.npy", "--seed", "1", "-o", "a.png", "--save-latents", "a.npy"]));
    works(&place.draw(&["--latents", "noise.npy", "--seed", "2", "-o", "b.png", "--save-latents", "b.npy"]));
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("a.npy"), bytes("b.npy"));

    std::fs::write(&noise, npy(&[1, 4, 8, 4], 0.5)).unwrap();
    fails(&place.draw(&["--latents", "noise.npy", "-o", "c.png"]), 2, &["[1, 4, 8, 4]", "[1, 4, 4, 4]"]);
    std::fs::write(&noise, npy(&[1, 4, 4, 4], f32::NAN)).unwrap();
    fails(&place.draw(&["--latents", "noise.npy", "-o", "c.png"]), 1, &["noise.npy", "not finite"]);
    std::fs::write(&noise, b"\x93NUMPY").unwrap();
    fails(&place.draw(&["--latents", "noise.npy", "-o", "c.png"]), 1, &["not a .npy file"]);
    assert!(!place.path("c.png").exists());
}

/// A version 1.0 `.npy` file full of one number.
fn npy(shape: &[usize], value: f32) -> Vec<u8> {
    npy_of(shape, std::iter::repeat_n(value, shape.iter().product()))
}

/// A version 1.0 `.npy` file.
fn npy_of(shape: &[usize], values: impl Iterator<Item = f32>) -> Vec<u8> {
    let dims: String = shape.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}").into_bytes();
    header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header);
    values.for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

#[test]
fn requests_that_cannot_be_served_are_refused_before_any_work() {
    let place = Place::new();
    let before = place.names();
    fails(&place.draw(&["--steps", "0"]), 2, &["0", "1000"]);
    fails(&place.draw(&["--steps", "1001"]), 2, &["1001", "1000"]);
    fails(&place.draw(&["--guidance", "NaN"]), 2, &["guidance", "NaN"]);
    fails(&place.draw(&["--guidance", "-1"]), 2, &["guidance", "-1"]);
    for interval in ["0.5", "0.8:0.2", "0:1.5", "-1:1", "NaN:1", "a:b", "0:0.5:1"] {
        let flag = format!("--guidance-interval={interval}");
        fails(&place.draw(&[&flag]), 2, &["guidance-interval", interval, "from 0 to 1"]);
    }
    fails(&place.draw(&["--eta", "1.5"]), 2, &["eta", "1.5"]);
    fails(&place.draw(&["--eta", "0.5", "--sampler", "euler"]), 2, &["euler has no eta", "ddim or tcd"]);
    fails(&place.draw(&["--eta", "1.5", "--sampler", "tcd"]), 2, &["eta", "1.5"]);
    fails(&place.draw(&["--sampler", "magic"]), 2, &["magic", "ddim", "euler-a", "dpmpp-2m", "unipc"]);
    let distilled = ["51", "expected 1 to 50", "original_inference_steps"];
    fails(&place.draw(&["--sampler", "lcm", "--steps", "51"]), 2, &distilled);
    fails(&place.draw(&["-n", "0"]), 2, &["0 pictures"]);
    fails(&place.draw(&["-n", "2", "--seed", "18446744073709551615"]), 2, &["seed"]);
    fails(&place.draw(&["--threads", "0"]), 2, &["threads"]);
    for side in ["0", "15", "4112", "18446744073709551615"] {
        fails(&place.draw(&["--width", side]), 2, &["width", side, "16"]);
        fails(&place.draw(&["--height", side]), 2, &["height", side, "16"]);
    }
    assert_eq!(place.names(), before);
}

/// Levels other than those of this machine are tried where there are such machines, by `tools/cross-test.sh`.
#[test]
fn every_level_draws_the_same_bytes_in_the_same_arithmetic() {
    let place = Place::new();
    let draw = |level: &str, arithmetic: &str, more: &[&str]| {
        let fixed =
            ["generate", "a red box", "--model", "tiny.tintype", "--steps", "2", "--seed", "3", "--json"];
        let environment = [("TINTYPE_LEVEL", level), ("TINTYPE_ARITHMETIC", arithmetic)];
        let output = works(&place.run_with(&environment, fixed.iter().chain(more)));
        let report: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(report["kernel_level"], level);
        report["images"][0]["sha256"].as_str().unwrap().to_owned()
    };
    let best = Level::detect().name();
    let pictures = ["f32", "i16", "i8"].map(|arithmetic| {
        let picture = draw("scalar", arithmetic, &[]);
        assert_eq!(picture, draw(best, arithmetic, &[]), "{arithmetic}");
        assert_eq!(draw(best, arithmetic, &["--deterministic"]), draw("scalar", "f32", &[]));
        picture
    });
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2], "the arithmetic makes a difference");
}

#[test]
fn levels_and_arithmetic_that_are_not_there_are_refused() {
    let place = Place::new();
    let refuse = |variable: &str, text: &str| {
        fails(&place.run_with(&[(variable, "abacus")], ["inspect", "tiny.tintype"]), 2, &["abacus", text]);
    };
    refuse("TINTYPE_LEVEL", "scalar");
    refuse("TINTYPE_ARITHMETIC", "f32, i16, i8");
}

#[test]
fn prompts() {
    let place = Place::new();
    let model = place.model.to_str().unwrap().to_owned();
    let with = |prompt: &OsStr| {
        let small = ["--model", &model, "--width", "16", "--height", "16", "--steps", "1", "-o", "p.png"];
        place.run([OsStr::new("generate"), prompt].into_iter().chain(small.map(OsStr::new)))
    };
    fails(&with(OsStr::new(&"x".repeat(100 << 10))), 2, &["102400 bytes", "4096"]);
    fails(&with(OsStr::from_bytes(b"a \xff box")), 2, &["UTF-8"]);
    assert!(!place.path("p.png").exists());

    works(&with(OsStr::new("")));
    let output = with(OsStr::new(&"seven ".repeat(100)));
    works(&output);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("has no effect") && warning.contains("seven"), "{warning}");

    fails(&place.run(["generate", "--model", &model]), 2, &["no prompt"]);
}

#[test]
fn models_that_cannot_be_used() {
    let place = Place::new();
    let good = std::fs::read(&place.model).unwrap();
    let model = |name: &str, bytes: &[u8]| {
        std::fs::write(place.path(name), bytes).unwrap();
        place.run(["generate", "x", "--model", name, "--width", "16", "--height", "16", "--steps", "1"])
    };
    fails(&place.run(["generate", "x"]), 3, &["no model", "models/emoji.tintype", "--model"]);
    for (pipeline, file) in
        [("unclip", "models/emoji-unclip.tintype"), ("pixels", "models/emoji-pixels.tintype")]
    {
        fails(&place.run(["generate", "x", "--pipeline", pipeline]), 3, &["no model", file]);
        let says = ["tiny.tintype is a model for --pipeline sd", pipeline, "leave the flag out"];
        fails(&place.draw(&["--pipeline", pipeline]), 2, &says);
    }
    works(&place.draw(&["--pipeline", "sd", "-o", "sd.png"]));
    fails(&place.run(["generate", "x", "--model", "none.tintype"]), 3, &["none.tintype"]);
    fails(&place.run(["generate", "x", "--model", "."]), 3, &["regular file"]);
    fails(&model("empty", &[]), 3, &["empty"]);
    fails(&model("foreign", &[0x55; 4096]), 3, &["foreign", "not a"]);
    fails(&model("short", &good[..good.len() - 1]), 3, &["short", "truncated"]);
    fails(&model("long", &[&good[..], b"x"].concat()), 3, &["long"]);
    let mut flipped = good.clone();
    flipped[200] ^= 4;
    fails(&model("header", &flipped), 3, &["header"]);
    assert!(!place.path("out.png").exists());

    let mut flipped = good.clone();
    let last = flipped.len() - 20;
    flipped[last] ^= 1;
    std::fs::write(place.path("flipped"), flipped).unwrap();
    fails(&place.run(["verify", "flipped"]), 3, &["flipped", "damaged", "vae_encoder"]);
    works(&place.run([OsStr::new("verify"), place.model.as_os_str()]));
}

#[test]
fn outputs_that_cannot_be_written() {
    let place = Place::new();
    fails(&place.draw(&["-o", "no/such/folder/a.png"]), 1, &["folder", "no/such/folder"]);
    fails(&place.draw(&["-o", "."]), 1, &["is a folder"]);
    if !is_root() {
        let locked = place.path("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
        fails(&place.draw(&["-o", "locked/a.png"]), 1, &["locked"]);
    }
    assert_eq!(place.names().iter().filter(|n| n.starts_with('.') || n.ends_with("png")).count(), 0);
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// A file system of a few pages; needs the right to mount one, as a container's root has.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).output();
        mount.is_ok_and(|m| m.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place.path("disk"), "4k") else {
        assert!(std::env::var_os("REQUIRE_MOUNT").is_none(), "no file system could be mounted");
        eprintln!("skipped: no right to mount a small file system");
        return;
    };
    fails(&place.draw(&["--width", "64", "--height", "64", "-o", "disk/a.png"]), 1, &["no space", "a.png"]);
    let tiny = fixture::data("tiny");
    fails(
        &place.run([OsStr::new("import"), tiny.as_os_str(), "-o".as_ref(), "disk/m".as_ref()]),
        1,
        &["no space"],
    );
    assert_eq!(std::fs::read_dir(&disk.0).unwrap().count(), 0);
}

#[test]
fn folders_that_cannot_be_imported() {
    let place = Place::new();
    let import = |folder: &str| place.run(["import", folder, "-o", "new.tintype"]);
    fails(&import("nowhere"), 1, &["nowhere", "unet"]);
    let unet = place.path("broken/unet");
    std::fs::create_dir_all(&unet).unwrap();
    std::fs::create_dir_all(place.path("broken/scheduler")).unwrap();
    std::fs::write(place.path("broken/scheduler/scheduler_config.json"), "{}").unwrap();
    std::fs::write(unet.join("config.json"), "{").unwrap();
    std::fs::write(unet.join("model.onnx"), "no protobuf at all").unwrap();
    fails(&import("broken"), 1, &["config.json"]);
    std::fs::write(unet.join("config.json"), "{}").unwrap();
    fails(&import("broken"), 1, &["unet"]);
    std::fs::write(place.path("broken/tintype.json"), "{\"sampler\": \"magic\"}").unwrap();
    fails(&import("broken"), 1, &["tintype.json", "magic", "ddim, ddpm, lcm"]);
    assert!(!place.path("new.tintype").exists());
}

#[test]
fn inspect_tells_what_is_in_a_model() {
    let place = Place::new();
    let report: serde_json::Value =
        serde_json::from_str(&works(&place.run(["inspect", "tiny.tintype", "--json"]))).unwrap();
    assert_eq!(report["components"].as_array().unwrap().len(), 4);
    assert_eq!(report["pipeline"]["default_width_px"], 64);
    assert!(report["model_hash"].is_string());
    let text = works(&place.run(["inspect", "tiny.tintype"]));
    assert!(text.contains("unet") && text.contains("tokenizer/vocab.json"), "{text}");
}

#[test]
fn inspect_shows_what_quantisation_cost_and_what_memory_is_planned() {
    let place = Place::new();
    let inspect = |more: &[&str]| {
        let args = ["inspect", "tiny.tintype", "--json"];
        serde_json::from_str::<serde_json::Value>(&works(&place.run(args.iter().chain(more)))).unwrap()
    };
    let report = inspect(&[]);
    for (at, component) in ["text_encoder", "unet", "vae_decoder", "vae_encoder"].into_iter().enumerate() {
        let part = &report["pipeline"]["report"]["components"][at];
        assert_eq!(part["component"], component);
        let off = part["weights"]["relative_l2"].as_f64().unwrap();
        assert!((1e-3..2e-2).contains(&off), "{component}: {off}");
        assert!(part["weights"]["psnr_db"].as_f64().unwrap() > 35.0);
        assert!(report["planned"][component]["peak_anon_bytes"].as_u64().unwrap() > 1_000_000);
    }
    let text = works(&place.run(["inspect", "tiny.tintype"]));
    assert!(text.contains("weights off by") && text.contains("MB of memory"), "{text}");

    fails(&place.run(["inspect", "tiny.tintype", "--memory", "1M"]), 5, &["needs", "1.0 MB are allowed"]);
    fails(&place.run(["inspect", "tiny.tintype", "--memory", "lots"]), 2, &["lots", "300M"]);
}

#[test]
fn pictures_stay_within_the_memory_that_is_allowed() {
    let place = Place::new();
    let size = ["--width", "512", "--height", "256", "--seed", "1", "--latents", "l.npy"];
    std::fs::write(place.path("l.npy"), npy(&[1, 4, 64, 128], 0.1)).unwrap();
    let draw = |more: &[&str]| place.draw(&[&size[..], more].concat());
    works(&draw(&["--tile", "off", "-o", "whole.png"]));
    works(&draw(&["--tile", "16", "-o", "striped.png"]));
    let differing = pixels(&place.path("whole.png")).into_iter().zip(pixels(&place.path("striped.png")));
    assert!(differing.map(|(a, b)| a.abs_diff(b)).max().unwrap() <= 1);

    // Tiles with their own normalisation are close, and no more than that.
    works(&draw(&["--tile", "blend:128", "-o", "blended.png"]));
    let differing = pixels(&place.path("whole.png")).into_iter().zip(pixels(&place.path("blended.png")));
    let mean = differing.map(|(a, b)| f64::from(a.abs_diff(b))).sum::<f64>() / (512.0 * 256.0 * 3.0);
    assert!(mean > 0.0 && mean < 40.0, "{mean}");

    fails(&draw(&["--memory", "9M", "-o", "no.png"]), 5, &["needs", "9.0 MB"]);
    fails(&draw(&["--tile", "0"]), 2, &["auto, off or a number"]);
    assert!(!place.path("no.png").exists());
}

fn pixels(path: &Path) -> Vec<u8> {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

#[test]
fn a_measured_import_says_what_it_does_to_outputs_and_pictures() {
    let place = Place::new();
    let tiny = fixture::data("tiny");
    let args = ["import", tiny.to_str().unwrap(), "-o", "measured.tintype", "--measure", "--json"];
    let output: serde_json::Value = serde_json::from_str(&works(&place.run(args))).unwrap();
    let report = &output["report"];
    for part in report["components"].as_array().unwrap() {
        let off = part["output"]["relative_l2"].as_f64().unwrap();
        assert!(off > 0.0 && off < 6e-2, "{part}");
    }
    assert!(report["picture"]["psnr_db"].as_f64().unwrap() > 30.0, "{report}");
    let inspected = works(&place.run(["inspect", "measured.tintype", "--json"]));
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(&inspected["pipeline"]["report"], report);
    assert_eq!(place.names(), ["measured.tintype", "tiny.tintype"], "nothing else is left behind");
}

#[test]
fn selftest_holds_a_board_against_the_references_in_the_model() {
    let place = Place::new();
    fails(&place.run(["selftest", "tiny.tintype"]), 1, &["no references"]);

    let source = fixture::data("topologies/taesd");
    works(&place.run(["import", source.to_str().unwrap(), "-o", "taesd.tintype"]));
    let report = works(&place.run(["selftest", "taesd.tintype", "--threads", "1", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["passed"], true);
    assert_eq!(report["arithmetic"], Level::detect().arithmetic().name());
    assert!(report["board"]["memory_bytes"].as_u64() > report["board"]["available_bytes"].as_u64());
    assert!(report["board"]["storage_bytes_per_s"].as_f64().unwrap() > 0.0);
    let arithmetics = if report["arithmetic"] == "f32" { 1 } else { 2 };
    assert_eq!(report["components"].as_array().unwrap().len(), 2 * arithmetics);
    for component in report["components"].as_array().unwrap() {
        assert!(component["relative_l2"].as_f64().unwrap() > 0.0, "int8 is never exact");
    }

    // The weights of another network under the same references.
    copy_folder(&source, &place.path("wrong"));
    let other = place.path("wrong/vae_decoder/reference.npz");
    std::fs::write(&other, doubled(&source.join("vae_decoder/reference.npz"))).unwrap();
    works(&place.run(["import", "wrong", "-o", "wrong.tintype"]));
    let output = place.run(["selftest", "wrong.tintype"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("vae_decoder"));
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            _ = std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// An `.npz` file with every value twice as large.
fn doubled(path: &Path) -> Vec<u8> {
    use std::io::Write as _;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, array) in fixture::npz(path) {
        let bytes = npy_of(&array.shape, array.values.iter().map(|x| 2.0 * x));
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn run_takes_and_gives_named_tensors() {
    let place = Place::new();
    let reference = fixture::data("tiny/reference/unet.npz");
    let args = ["run", "tiny.tintype", "--component", "unet", "--outputs", "o.npz", "--json", "--inputs"];
    let output = place.run(args.map(OsStr::new).into_iter().chain([reference.as_os_str()]));
    let report: serde_json::Value = serde_json::from_str(&works(&output)).unwrap();
    assert_eq!(report["outputs"]["out_sample"], serde_json::json!([1, 4, 8, 12]));
    let (got, expected) = (fixture::npz(&place.path("o.npz")), fixture::npz(&reference));
    assert!(fixture::relative_l2(&got["out_sample"].values, &expected["out_sample"].values) < 0.05);

    let missing =
        place.run(["run", "tiny.tintype", "--component", "prior", "--inputs", "x", "--outputs", "y"]);
    fails(&missing, 3, &["prior"]);
    let unknown = place.run(["run", "tiny.tintype", "--component", "foo", "--inputs", "x", "--outputs", "y"]);
    fails(&unknown, 2, &["foo", "unet"]);
}

#[test]
fn bench_measures_a_component_or_a_picture() {
    let place = Place::new();
    for (component, args) in [("unet", &["--component", "unet"][..]), ("pipeline", &[])] {
        let fixed = ["bench", "tiny.tintype", "--width", "32", "--height", "16", "--threads", "1", "--json"];
        let args = fixed.iter().chain(args).chain(&["--repeat", "2"]);
        let report: serde_json::Value = serde_json::from_str(&works(&place.run(args))).unwrap();
        assert_eq!(report["component"], component);
        assert_eq!(report["threads"], 1);
        let seconds: Vec<f64> =
            report["seconds"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
        assert_eq!(seconds.len(), 2);
        assert_eq!(report["median_s"].as_f64().unwrap(), (seconds[0] + seconds[1]) / 2.0);
        for field in ["load_s", "peak_anon_bytes", "peak_file_bytes"] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
        }
        assert!(report["kernel_level"].is_string());
    }
    fails(&place.run(["bench", "tiny.tintype", "--repeat", "0"]), 2, &["--repeat", "1 to 1000"]);
    fails(&place.run(["bench", "tiny.tintype", "--width", "7"]), 2, &["width", "7"]);
    fails(&place.run(["bench", "tiny.tintype", "--component", "prior"]), 3, &["prior"]);
}
