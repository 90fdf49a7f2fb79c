//! The program with a model of pixels.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tintype::denoise::noise::TorchGenerator;
use tintype::import::Precision;

use super::fixture::program;
use super::{data, with_classes};

/// A folder with a model in it, in which the program is run.
struct Place(tempfile::TempDir);

impl Place {
    fn new(classes: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ours = json!({ "default_steps": 3, "default_guidance": 2.0, "classes": classes });
        with_classes(folder.path(), &ours, Precision::Int8).unwrap();
        Self(folder)
    }

    /// With names for its classes.
    fn named() -> Self {
        let name = |name: &str, aliases: &[&str]| json!({ "name": name, "aliases": aliases });
        let names =
            [name("cat", &["Kitten"]), name("panda", &["판다"]), name("panther", &[]), name("snail", &[])];
        Self::new(&json!({ "null": 4, "names": names }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        program(self.0.path()).args(args).output().unwrap()
    }

    /// Draws with the model here.
    fn draw(&self, more: &[&str]) -> Output {
        self.run(&[&["generate", "--model", "pixels.tintype", "--seed", "7"], more].concat())
    }

    /// The picture that is drawn, its width and height before it.
    fn drawn(&self, more: &[&str]) -> (u32, u32, Vec<u8>) {
        works(&self.draw(&[more, &["-o", "drawn.png"]].concat()));
        let picture = tintype::picture::read(&std::fs::read(self.path("drawn.png")).unwrap()).unwrap();
        (picture.width_px() as u32, picture.height_px() as u32, picture.pixels().to_vec())
    }
}

#[track_caller]
fn works(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn fails(output: &Output, code: i32, says: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(output.stdout.is_empty());
    says.iter().for_each(|says| assert!(message.contains(says), "{says:?} is not in {message:?}"));
}

#[test]
fn a_picture_needs_no_prompt() {
    let place = Place::named();
    let more = ["--pipeline", "pixels", "-n", "2", "-o", "a.png", "--save-latents", "z.npy", "--json"];
    let report: Value = serde_json::from_str(&works(&place.draw(&more))).unwrap();
    assert_eq!([&report["images"][0]["seed"], &report["images"][1]["seed"]], [7, 8]);
    assert_eq!(report["images"][1]["path"], "a-2.png");
    assert_eq!([&report["width"], &report["height"], &report["steps"]], [12, 8, 3]);
    assert_eq!(report["sampler"], "ddim");
    for key in ["load", "text", "denoise", "decode", "total"] {
        assert!(report["seconds"][key].as_f64().unwrap() >= 0.0, "{key}");
    }
    let saved = std::fs::read(place.path("z-1.npy")).unwrap();
    let saved = npyz::NpyFile::new(&saved[..]).unwrap();
    assert_eq!(saved.shape(), [1, 3, 8, 12]);
    // What was saved is the picture before it was rounded.
    let saved: Vec<f32> = saved.into_vec().unwrap();
    let (_, _, pixels) = place.drawn(&[]);
    for (at, &byte) in pixels.iter().enumerate() {
        let x = (saved[at % 3 * 96 + at / 3] / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0;
        assert!((f32::from(byte) - x).abs() <= 0.5 + 1e-3);
    }
}

#[test]
fn a_prompt_is_a_class_by_any_of_its_names() {
    let place = Place::named();
    let panda = place.drawn(&["panda"]);
    assert_eq!(panda, place.drawn(&[" PANDA "]));
    assert_eq!(panda, place.drawn(&["판다"]));
    let others =
        [&[][..], &["kitten"], &["panda", "--guidance", "1"], &["panda", "--guidance-interval", "0:0.4"]];
    others.iter().for_each(|other| assert_ne!(panda, place.drawn(other), "{other:?}"));
    // Without a class there is nothing to be guided to.
    assert_eq!(place.drawn(&[""]), place.drawn(&["", "--guidance", "1"]));
    fails(&place.draw(&["pandr"]), 2, &["no class `pandr`", "panda, panther"]);
    fails(&place.draw(&["3"]), 2, &["no class `3`"]);
    let numbered = Place::new(&json!({ "null": 4 }));
    assert_eq!(panda, numbered.drawn(&["1"]));
    assert_eq!(numbered.drawn(&["4"]), numbered.drawn(&[""]));
    fails(&numbered.draw(&["5"]), 2, &["from 0 to 4", "`5`"]);
    let strict = Place::new(&json!({ "names": [{ "name": "cat" }] }));
    fails(&strict.draw(&["--guidance", "1"]), 2, &["told a class, such as cat"]);
    fails(&strict.draw(&["cat", "--guidance", "3"]), 2, &["guidance"]);
    strict.drawn(&["cat", "--guidance", "1"]);
}

#[test]
fn noise_of_any_source_is_the_same() {
    let place = Place::named();
    let mut noise = vec![0.0; 3 * 8 * 12];
    TorchGenerator::new(7).fill_normal(&mut noise);
    let mut file = Vec::new();
    {
        use npyz::WriterBuilder as _;
        let options = npyz::WriteOptions::new().default_dtype().shape(&[1, 3, 8, 12]);
        let mut writer = options.writer(&mut file).begin_nd().unwrap();
        writer.extend(noise).unwrap();
        writer.finish().unwrap();
    }
    std::fs::write(place.path("noise.npy"), file).unwrap();
    assert_eq!(place.drawn(&["cat"]), place.drawn(&["cat", "--latents", "noise.npy"]));
    fails(
        &place.draw(&["cat", "--latents", "noise.npy", "--width", "16"]),
        2,
        &["[1, 3, 8, 12]", "[1, 3, 8, 16]"],
    );
    let eta = ["cat", "--sampler", "ddim", "--eta", "1"];
    assert_ne!(place.drawn(&["cat"]), place.drawn(&eta));
    assert_eq!(place.drawn(&eta), place.drawn(&[&eta[..], &["--threads", "1"]].concat()));
    fails(&place.draw(&["--memory", "1M"]), 5, &["1.0 MB are allowed"]);
    fails(&place.draw(&["--sampler", "ddpm", "--eta", "1"]), 2, &["eta"]);
}

#[test]
fn an_icon_is_enlarged_and_drawn_again() {
    let place = Place::named();
    let (width, height, small) = place.drawn(&["cat"]);
    assert_eq!((width, height), (12, 8));
    let (width, height, large) = place.drawn(&["cat", "--scale", "3"]);
    assert_eq!((width, height), (36, 24));
    for (at, pixel) in large.chunks_exact(3).enumerate() {
        assert_eq!(pixel, &small[(at / 36 / 3 * 12 + at % 36 / 3) * 3..][..3]);
    }
    let replay = ["replay", "drawn.png", "--model", "pixels.tintype", "--check"];
    assert!(works(&place.run(&replay)).contains("identical"));
    works(&place.run(&["replay", "drawn.png", "--model", "pixels.tintype", "-o", "again.png"]));
    assert_eq!(
        std::fs::read(place.path("drawn.png")).unwrap(),
        std::fs::read(place.path("again.png")).unwrap()
    );
    // The model that ships for the pipeline is found by both.
    std::fs::create_dir(place.path("models")).unwrap();
    std::fs::rename(place.path("pixels.tintype"), place.path("models/emoji-pixels.tintype")).unwrap();
    works(&place.run(&["generate", "--pipeline", "pixels", "-o", "drawn.png"]));
    assert!(works(&place.run(&["replay", "drawn.png", "--check"])).contains("identical"));
    std::fs::rename(place.path("models/emoji-pixels.tintype"), place.path("pixels.tintype")).unwrap();
    for scale in ["0", "33"] {
        fails(&place.draw(&["--scale", scale]), 2, &["scale", "1 to 32"]);
    }
    fails(&place.draw(&["--scale", "32", "--width", "1024"]), 2, &["16384"]);
}

#[test]
fn a_sheet_shows_noise_and_steps() {
    let place = Place::named();
    let explain = |more: &[&str]| {
        place.run(&[&["explain", "--model", "pixels.tintype", "--seed", "7", "--json"], more].concat())
    };
    for prompt in [&[][..], &["판다"]] {
        let report: Value = serde_json::from_str(&works(&explain(prompt))).unwrap();
        assert_eq!(report["steps"].as_array().unwrap().len(), 3);
        assert!(report["words"].as_array().unwrap().is_empty());
        assert_eq!(report["noise"][4], 999);
        std::fs::remove_file(place.path("sheet.png")).unwrap();
    }
    fails(&explain(&["dog"]), 2, &["dog"]);
    fails(&explain(&["--negative", "cat"]), 2, &["--negative", "no words"]);
    fails(&explain(&["--pipeline", "sd"]), 2, &["--pipeline pixels"]);
    assert!(!place.path("sheet.png").exists());
}

#[test]
fn flags_for_other_pipelines_are_refused_with_why() {
    let place = Place::named();
    for (flags, says) in [
        (&["--negative", "blur"][..], "no words"),
        (&["--syntax", "a1111"], "no words"),
        (&["--clip-skip", "1"], "no words"),
        (&["--vae", "x"], "nothing to decode"),
        (&["--tile", "32"], "nothing to decode"),
        (&["--lora", "x"], "Stable Diffusion"),
        (&["--init-image", "x"], "noise"),
        (&["--best-of", "2"], "CLIP"),
        (&["--block", "x"], "CLIP"),
        (&["--checkpoint", "x"], "steps"),
        (&["--preview", "x"], "steps"),
    ] {
        fails(&place.draw(flags), 2, &[flags[0], says]);
    }
    assert!(!place.path("out.png").exists());
}

#[test]
fn other_commands_know_such_a_model() {
    let place = Place::named();
    assert!(works(&place.run(&["verify", "pixels.tintype"])).contains("every checksum"));
    let report: Value =
        serde_json::from_str(&works(&place.run(&["inspect", "pixels.tintype", "--json"]))).unwrap();
    assert_eq!(report["pipeline"]["kind"], "pixels");
    assert_eq!(report["pipeline"]["classes"]["names"][1]["aliases"][0], "판다");
    assert!(report["planned"]["unet"]["peak_anon_bytes"].as_u64().unwrap() > 0);
    assert!(works(&place.run(&["inspect", "pixels.tintype"])).contains("12 x 8 px"));
    for more in [&[][..], &["--component", "unet"]] {
        let bench = [&["bench", "pixels.tintype", "--repeat", "1", "--json"], more].concat();
        let report: Value = serde_json::from_str(&works(&place.run(&bench))).unwrap();
        assert_eq!(report["seconds"].as_array().unwrap().len(), 1);
    }
    let import = ["import", "source", "-o", "measured.tintype", "--measure", "--json"];
    let report: Value = serde_json::from_str(&works(&place.run(&import))).unwrap();
    assert!(report["report"]["picture"]["psnr_db"].as_f64().unwrap() > 20.0, "{report}");
    // The graph that carries a reference.
    let source = place.path("graphs");
    super::fixture::copy(&data("pixels/onnx/unet"), &source.join("unet"));
    super::fixture::copy(&place.path("source/scheduler"), &source.join("scheduler"));
    std::fs::write(source.join("model_index.json"), r#"{"_class_name": "DDIMPipeline"}"#).unwrap();
    works(&place.run(&["import", "graphs", "-o", "graphs.tintype"]));
    assert!(works(&place.run(&["selftest", "graphs.tintype"])).contains("unet"));
    works(&place.run(&["generate", "1", "--model", "graphs.tintype", "--steps", "2"]));
    let inputs = data("pixels/onnx/unet/reference.npz");
    let run = ["run", "graphs.tintype", "--component", "unet", "--outputs", "out.npz", "--inputs"];
    assert!(works(&place.run(&[&run[..], &[inputs.to_str().unwrap()]].concat())).contains("out_sample"));
    // The daemon draws with other kinds.
    std::fs::remove_file(place.path("measured.tintype")).unwrap();
    let says = ["pixels.tintype is left out", "kind pixels", "no usable"];
    fails(&place.run(&["serve", "--models", ".", "--state", "state", "--socket", "socket"]), 3, &says);
}
