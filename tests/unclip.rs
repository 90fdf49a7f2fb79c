//! unCLIP: embeddings of pictures out of prompts and pictures, and what is drawn from them, against diffusers.

#[path = "checkpoint/file.rs"]
mod file;
mod fixture;
#[path = "checkpoint/formula.rs"]
mod formula;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tintype::bundle::{self, Bundle, PipelineKind};
use tintype::clip::ImageEncoder;
use tintype::denoise::guidance::GuidanceScale;
use tintype::denoise::noise::TorchGenerator;
use tintype::denoise::prior::{self, Prior, Prompts};
use tintype::engine::{Component, NamedTensor, Resources, Threads};
use tintype::import::{self, Precision};
use tintype::pipeline::{End, Image, Request, Sight, TextToImage, read_picture};
use tintype::tensor::Rgb8;
use tintype::text::Prompt;
use tintype::text::encoder::TextEncoder;

use file::{Named, golden, write};
use fixture::{Array, copy, data, npz, program, psnr_db, relative_l2, root};
use formula::{given, weight};

/// Numbers in an embedding.
const EMBEDDING: usize = 16;
/// Tokens of the prior's context.
const CONTEXT: usize = 77;

fn goldens() -> (Value, HashMap<String, Array>) {
    (golden(&data("unclip/drawn.json.gz")), npz(&data("unclip/drawn.npz")))
}

fn resources() -> Resources {
    Resources::new(Threads::new(2))
}

fn prompt(value: &Value) -> Prompt {
    Prompt::new(value.as_str().unwrap()).unwrap()
}

fn scale(value: &Value) -> GuidanceScale {
    GuidanceScale::new(value.as_f64().unwrap() as f32).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// A weight as tools/goldens/unclip.py has it: statistics are a mean near 0 and a deviation near 1.
fn weight_of(name: &str, shape: &[usize]) -> Vec<f32> {
    match name {
        "clip_mean" | "mean" => weight(name, &[EMBEDDING]),
        "clip_std" | "std" => weight(&format!("{name}.weight"), &[EMBEDDING]),
        _ => weight(name, shape),
    }
}

/// A folder of StableUnCLIP as diffusers writes it, with an image encoder.
fn stable_unclip(golden: &Value, folder: &Path) -> PathBuf {
    let source = folder.join("source");
    for (name, network) in golden["networks"].as_object().unwrap() {
        let tensors = network["tensors"].as_array().unwrap().iter().map(|tensor| {
            let shape: Vec<usize> = serde_json::from_value(tensor[1].clone()).unwrap();
            let name = tensor[0].as_str().unwrap();
            (name.to_owned(), shape.clone(), weight_of(name, &shape))
        });
        let tensors: Vec<Named> = tensors.collect();
        write(&source.join(name).join(network["file"].as_str().unwrap()), &tensors, Dtype::F32);
        std::fs::write(source.join(name).join("config.json"), network["config"].to_string()).unwrap();
    }
    for (name, scheduler) in golden["schedulers"].as_object().unwrap() {
        std::fs::create_dir_all(source.join(name)).unwrap();
        std::fs::write(source.join(name).join("scheduler_config.json"), scheduler.to_string()).unwrap();
    }
    copy(&data("tiny/tokenizer"), &source.join("tokenizer"));
    copy(&data("tiny/tokenizer"), &source.join("prior_tokenizer"));
    std::fs::create_dir_all(source.join("feature_extractor")).unwrap();
    let processor = golden["processor"].to_string();
    std::fs::write(source.join("feature_extractor/preprocessor_config.json"), processor).unwrap();
    let index = json!({"_class_name": "StableUnCLIPPipeline"}).to_string();
    std::fs::write(source.join("model_index.json"), index).unwrap();
    source
}

/// The model, in f32.
fn model(golden: &Value, folder: &Path) -> Arc<Bundle> {
    let path = folder.join("whole.tintype");
    import::import(&stable_unclip(golden, folder), &path, Precision::F32, &mut |_, _| ()).unwrap();
    Arc::new(Bundle::open(&path).unwrap())
}

/// A model that has a prior and a `text_proj`, both from graphs, and leans on the other.
fn leaning(golden: &Value, folder: &Path) -> PathBuf {
    let source = folder.join("part");
    for part in ["prior", "text_proj"] {
        copy(&data("unclip").join(part), &source.join(part));
    }
    let statistics = json!({
        "mean": weight_of("clip_mean", &[EMBEDDING]), "std": weight_of("clip_std", &[EMBEDDING]),
    });
    std::fs::write(source.join("prior/statistics.json"), statistics.to_string()).unwrap();
    std::fs::create_dir_all(source.join("prior_scheduler")).unwrap();
    let scheduler = golden["unclip_scheduler"].to_string();
    std::fs::write(source.join("prior_scheduler/scheduler_config.json"), scheduler).unwrap();
    std::fs::write(source.join("model_index.json"), r#"{"_class_name": "UnCLIPPipeline"}"#).unwrap();
    let ours = json!({"base": "whole.tintype", "default_prior_steps": 4, "default_prior_guidance": 4.0, "embedding_norm": 4.0});
    std::fs::write(source.join("tintype.json"), ours.to_string()).unwrap();
    let path = folder.join("part.tintype");
    import::import(&source, &path, Precision::F32, &mut |_, _| ()).unwrap();
    path
}

/// The request that a run of the goldens describes.
fn request(bundle: &Bundle, run: &Value) -> Request {
    let mut request = Request::new(bundle, prompt(&run["prompt"]), run["seed"].as_u64().unwrap()).unwrap();
    request.negative = run.get("negative").map_or_else(Prompt::default, prompt);
    (request.steps, request.guidance_scale) = (number(&run["steps"]), scale(&run["guidance"]));
    let unclip = request.unclip.as_mut().unwrap();
    if run["prior_steps"].is_u64() {
        (unclip.prior_steps, unclip.prior_guidance) =
            (number(&run["prior_steps"]), scale(&run["prior_guidance"]));
    }
    unclip.noise_level = run["noise_level"].as_u64().unwrap_or(0) as usize;
    request
}

fn draw(bundle: &Arc<Bundle>, request: &Request) -> Vec<Image> {
    TextToImage::new(bundle.clone(), resources()).run(request, &mut ()).unwrap()
}

#[track_caller]
fn close(what: &str, got: &[f32], expected: &Array, most: f64) {
    let error = relative_l2(got, &expected.values);
    println!("{what}: {error:.1e}");
    assert!(error < most, "{what}: {error:e}");
}

/// What the prior is given in the goldens.
fn prior_inputs() -> Vec<NamedTensor> {
    let mask = (0..CONTEXT).map(|at| f32::from(u8::from(at < 9))).collect();
    let states = [1, CONTEXT, EMBEDDING];
    vec![
        NamedTensor::new("hidden_states", &[1, EMBEDDING], given("hidden_states", &[1, EMBEDDING])),
        NamedTensor::new("timestep", &[1], vec![501.0]),
        NamedTensor::new("proj_embedding", &[1, EMBEDDING], given("proj_embedding", &[1, EMBEDDING])),
        NamedTensor::new("encoder_hidden_states", &states, given("encoder_hidden_states", &states)),
        NamedTensor::new("attention_mask", &[1, CONTEXT], mask),
    ]
}

#[test]
fn a_prior_predicts_what_diffusers_does() {
    let (golden, arrays) = goldens();
    let folder = tempfile::tempdir().unwrap();
    let whole = model(&golden, folder.path());
    let part = Arc::new(Bundle::open(&leaning(&golden, folder.path())).unwrap());
    for (what, bundle) in [("from safetensors", &whole), ("from a graph", &part)] {
        let mut prior = Component::load(bundle, bundle::Component::Prior, &resources()).unwrap();
        let mut inputs = prior_inputs();
        let mut predict =
            |inputs: &[NamedTensor]| prior.run_for("predicted_image_embedding", inputs).unwrap().values;
        close(what, &predict(&inputs), &arrays["prior"], 1e-5);
        // What is masked has no effect, and everything else has.
        let whole = predict(&inputs);
        inputs[3].values[20 * EMBEDDING..].fill(7.0);
        assert_eq!(predict(&inputs), whole, "{what}");
        inputs[3].values[8 * EMBEDDING] += 1.0;
        assert_ne!(predict(&inputs), whole, "{what}");
        // A batch of two is two of one.
        let twice = |input: &NamedTensor| match input.name.as_str() {
            "timestep" => input.clone(),
            name => {
                let shape = [&[2], &input.shape[1..]].concat();
                NamedTensor::new(name, &shape, [&input.values[..], &input.values[..]].concat())
            }
        };
        let both: Vec<NamedTensor> = prior_inputs().iter().map(twice).collect();
        assert_eq!(predict(&both), [&whole[..], &whole[..]].concat(), "{what}");
    }
}

#[test]
fn stable_unclip_draws_what_diffusers_draws() {
    let (golden, arrays) = goldens();
    let folder = tempfile::tempdir().unwrap();
    let bundle = model(&golden, folder.path());
    assert_eq!(bundle.pipeline().kind, PipelineKind::Unclip);
    for (at, run) in golden["runs"].as_array().unwrap().iter().enumerate() {
        let image = draw(&bundle, &request(&bundle, run)).remove(0);
        close(&format!("run {at}"), image.latents.values(), &arrays[&format!("latents.{at}")], 1e-4);
    }
}

#[test]
fn a_picture_is_embedded_and_drawn_as_by_diffusers() {
    let (golden, arrays) = goldens();
    let folder = tempfile::tempdir().unwrap();
    let bundle = model(&golden, folder.path());
    let picture = read_picture(&data("given/picture.png")).unwrap();
    let embedding = ImageEncoder::load(&bundle, &resources()).unwrap().embed_as_is(&picture).unwrap();
    close("embedding", &embedding, &arrays["picture"], 1e-5);
    for (at, run) in golden["variations"].as_array().unwrap().iter().enumerate() {
        let mut request = request(&bundle, run);
        request.unclip.as_mut().unwrap().sight = Sight::Picture(picture.clone());
        let image = draw(&bundle, &request).remove(0);
        close(&format!("variation {at}"), image.latents.values(), &arrays[&format!("variation.{at}")], 1e-4);
    }
}

/// The embedding that the prior of a model makes, as `UnCLIPPipeline` does.
fn imagined(bundle: &Arc<Bundle>, scheduler: &Value, run: &Value) -> Vec<f32> {
    let kind = bundle::Component::PriorTextEncoder;
    let mut encoder = TextEncoder::load_one(bundle, kind, &resources()).unwrap();
    let (cond, _) = encoder.read(&prompt(&run["prompt"])).unwrap();
    let (uncond, _) = encoder.read(&Prompt::default()).unwrap();
    let mut sampler = prior::sampler(scheduler, number(&run["prior_steps"])).unwrap();
    let prompts = Prompts { cond: &cond, uncond: &uncond, guidance_scale: scale(&run["prior_guidance"]) };
    let mut generator = TorchGenerator::new(run["seed"].as_u64().unwrap());
    let mut prior = Prior::load(bundle, &resources()).unwrap();
    let embedding = prior.run(&mut *sampler, &prompts, &mut generator).unwrap();
    let [mean, std] = ["clip_mean", "clip_std"].map(|name| weight_of(name, &[EMBEDDING]));
    embedding.iter().zip(mean.iter().zip(std)).map(|(x, (mean, std))| x * std + mean).collect()
}

#[test]
fn a_prior_makes_the_embeddings_that_diffusers_makes() {
    let (golden, arrays) = goldens();
    let folder = tempfile::tempdir().unwrap();
    let bundle = model(&golden, folder.path());
    for (at, run) in golden["runs"].as_array().unwrap().iter().enumerate() {
        let got = imagined(&bundle, &bundle.pipeline().unclip.as_ref().unwrap().prior_scheduler, run);
        close(&format!("embedding {at}"), &got, &arrays[&format!("embedding.{at}")], 1e-5);
    }
    for (at, run) in golden["karlo"].as_array().unwrap().iter().enumerate() {
        let got = imagined(&bundle, &golden["unclip_scheduler"], run);
        close(&format!("Karlo's {at}"), &got, &arrays[&format!("karlo.{at}")], 1e-5);
    }
}

#[test]
fn a_model_that_leans_on_another_draws_with_both() {
    let (golden, arrays) = goldens();
    let folder = tempfile::tempdir().unwrap();
    model(&golden, folder.path());
    let path = leaning(&golden, folder.path());
    let bundle = Arc::new(Bundle::open(&path).unwrap());
    let run = &golden["projected"];
    let image = draw(&bundle, &request(&bundle, run)).remove(0);
    close("latents", image.latents.values(), &arrays["projected"], 1e-4);

    let whole = folder.path().join("whole.tintype");
    let bytes = std::fs::read(&whole).unwrap();
    let refusal = || {
        let error = Bundle::open(&path).unwrap_err();
        format!("{error}: {}", std::error::Error::source(&error).unwrap())
    };
    std::fs::remove_file(&whole).unwrap();
    assert!(refusal().contains("needs") && refusal().contains("whole.tintype"), "{}", refusal());
    import::import(&data("tiny"), &whole, Precision::F32, &mut |_, _| ()).unwrap();
    assert!(
        refusal().contains("of hash") && refusal().contains("install both of one version"),
        "{}",
        refusal()
    );
    std::fs::copy(&path, &whole).unwrap();
    assert!(refusal().contains("needs another model itself"), "{}", refusal());
    std::fs::write(&whole, bytes).unwrap();
    Bundle::open(&path).unwrap();
}

#[test]
fn the_way_between_two_embeddings_has_both_ends_and_one_noise() {
    let (golden, _) = goldens();
    let folder = tempfile::tempdir().unwrap();
    let bundle = model(&golden, folder.path());
    let picture = read_picture(&data("given/picture.png")).unwrap();
    let plain = request(&bundle, &golden["variations"][0]);
    let with = |sight, count| {
        let mut request = Request { count, ..plain.clone() };
        request.unclip.as_mut().unwrap().sight = sight;
        request
    };
    let ends = Box::new([End::Picture(picture.clone()), End::Prompt(Prompt::new("a hat").unwrap())]);
    let way = draw(&bundle, &with(Sight::Between(ends.clone()), 3));
    let seeds: Vec<u64> = way.iter().map(|image| image.seed).collect();
    assert_eq!((seeds, way[2].at), (vec![plain.seed; 3], 2));
    let first = draw(&bundle, &with(Sight::Picture(picture), 1)).remove(0);
    assert!(relative_l2(way[0].latents.values(), first.latents.values()) < 1e-6);
    assert!(way[0].latents != way[1].latents && way[1].latents != way[2].latents);
    let one = TextToImage::new(bundle.clone(), resources()).check(&with(Sight::Between(ends), 1));
    assert!(one.unwrap_err().to_string().contains("expected 2 or more"));
}
#[test]
fn the_model_that_ships_draws_what_torch_draws() {
    let runs: Value = serde_json::from_slice(&std::fs::read(data("beside.json")).unwrap()).unwrap();
    let pictures = npz(&data("beside.npz"));
    let bundle = Arc::new(Bundle::open(&root("models/emoji-unclip.tintype")).unwrap());
    let request = |run: &Value, words: &Value| {
        Request::new(&bundle, prompt(words), run["seed"].as_u64().unwrap()).unwrap()
    };
    let by_prompt = request(&runs["prompt"], &runs["prompt"]["prompt"]);
    let mut by_picture = request(&runs["variation"], &json!(""));
    let given = pictures["prompt"].values.iter().map(|&value| value as u8).collect();
    by_picture.unclip.as_mut().unwrap().sight = Sight::Picture(Rgb8::new(given, 128, 128).unwrap());
    for (name, request) in [("prompt", by_prompt), ("variation", by_picture)] {
        let image = draw(&bundle, &request).remove(0);
        let psnr_db = psnr_db(image.pixels.pixels(), &pictures[name].values);
        println!("{name}: {psnr_db:.1} dB");
        assert!(psnr_db >= 38.0, "{name}: {psnr_db:.1} dB");
    }
}

// The program

struct Place(tempfile::TempDir);

impl Place {
    fn run(&self, args: &[&str]) -> Output {
        program(self.0.path()).args(args).output().unwrap()
    }

    #[track_caller]
    fn works(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let output = self.run(args);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    }
}

#[test]
fn the_program_draws_and_says_what_it_cannot() {
    let (golden, _) = goldens();
    let place = Place(tempfile::tempdir().unwrap());
    model(&golden, place.0.path());
    let models = place.0.path().join("models");
    std::fs::create_dir(&models).unwrap();
    leaning(&golden, place.0.path());
    std::fs::copy(place.0.path().join("whole.tintype"), models.join("whole.tintype")).unwrap();
    std::fs::copy(place.0.path().join("part.tintype"), models.join("emoji-unclip.tintype")).unwrap();
    std::fs::copy(data("given/picture.png"), place.0.path().join("picture.png")).unwrap();

    let draw = ["generate", "a hat", "--pipeline", "unclip", "--steps", "2", "--seed", "1"];
    let report: Value = serde_json::from_str(&place.works(&[&draw[..], &["--json"]].concat())).unwrap();
    assert!(report["seconds"]["prior"].as_f64().unwrap() > 0.0 && report["images"][0]["seed"] == 1);
    let model = ["--model", "models/emoji-unclip.tintype"];
    place.works(&[&["replay", "out.png", "--check"], &model[..]].concat());

    let variation =
        ["generate", "--pipeline", "unclip", "--image", "picture.png", "--steps", "2", "-o", "other.png"];
    place.works(&variation);
    place.fails(&[&["replay", "other.png", "--check"], &model[..]].concat(), 2, "give it with --image");
    place.works(&[&["replay", "other.png", "--check", "--image", "picture.png"], &model[..]].concat());

    let way = [
        "generate",
        "--pipeline",
        "unclip",
        "--interpolate",
        "picture.png",
        "a hat",
        "--steps",
        "1",
        "-o",
        "way.png",
    ];
    place.works(&[&way[..], &["-n", "3"]].concat());
    assert!((1..=3).all(|at| place.0.path().join(format!("way-{at}.png")).exists()));
    place.fails(&[&["replay", "way-2.png"], &model[..]].concat(), 2, "--interpolate");
    place.fails(&way, 2, "expected 2 or more");
    place.fails(&[&way[..], &["--best-of", "2"]].concat(), 2, "--best-of");

    place.fails(&["generate", "--pipeline", "unclip"], 2, "no prompt");
    place.fails(&[&draw[..], &["--noise-level", "1"]].concat(), 2, "noise level 1");
    place.fails(&[&draw[..], &["--prior-steps", "0"]].concat(), 2, "0 steps");
    place.fails(&[&draw[..], &["--prior-guidance", "-1"]].concat(), 2, "prior's guidance");
    let whole = ["generate", "x", "--model", "whole.tintype", "--noise-level", "1000"];
    place.fails(&whole, 2, "largest is 999");

    assert!(place.works(&["verify", "models/emoji-unclip.tintype"]).contains("whole.tintype"));
    assert!(place.works(&["inspect", "models/emoji-unclip.tintype"]).contains("whole.tintype beside it"));
    std::fs::remove_file(models.join("whole.tintype")).unwrap();
    place.fails(&draw, 3, "whole.tintype");
}
