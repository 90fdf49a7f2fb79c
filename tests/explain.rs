//! What is shown of a run against diffusers and transformers: noise, predictions, attention, similarity.
//!
//! `tests/data/README.md` says how the references were made.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{data, npz, relative_l2, root};
use serde_json::Value;
use tintype::bundle::{Bundle, Component};
use tintype::denoise::guidance::GuidanceScale;
use tintype::engine::{EngineError, NamedTensor, Resources, Threads};
use tintype::import::{self, Precision};
use tintype::kernels::Arithmetic;
use tintype::pipeline::{Explanation, PipelineError, Request, RequestError, Size, TextToImage, explain};
use tintype::sheet;
use tintype::text::Prompt;

/// The small pipeline with these folders of `tests/data` in it.
fn bundle(folder: &Path, others: &[(&str, &str)]) -> Arc<Bundle> {
    let source = folder.join("source");
    for part in ["text_encoder", "tokenizer", "unet", "vae_decoder", "scheduler"] {
        let from =
            others.iter().find(|(name, _)| *name == part).map_or(format!("tiny/{part}"), |o| o.1.into());
        fixture::copy(&data(&from), &source.join(part));
    }
    let added = others.iter().filter(|(name, _)| !source.join(name).exists()).collect::<Vec<_>>();
    added.iter().for_each(|(name, from)| fixture::copy(&data(from), &source.join(name)));
    let target = folder.join("model.tintype");
    import::import(&source, &target, Precision::F32, &mut |_, _| ()).unwrap();
    Arc::new(Bundle::open(&target).unwrap())
}

/// With what embeds sentences and pictures in one space.
const CLIP: [(&str, &str); 2] =
    [("text_encoder", "explain/text_encoder"), ("image_encoder", "safety_checker/safety_checker")];

fn resources() -> Resources {
    Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(2)) }
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(data("explain/run.json")).unwrap()).unwrap()
}

fn request(bundle: &Bundle) -> Request {
    let run = &golden()["run"];
    let number = |key: &str| run[key].as_u64().unwrap() as usize;
    let prompt = |key: &str| Prompt::new(run[key].as_str().unwrap()).unwrap();
    let mut request = Request::new(bundle, prompt("prompt"), number("seed") as u64).unwrap();
    request.negative = prompt("negative");
    request.steps = number("steps");
    request.guidance_scale = GuidanceScale::new(run["guidance"].as_f64().unwrap() as f32).unwrap();
    request.size = Size { width_px: number("width"), height_px: number("height") };
    request
}

#[test]
fn what_is_shown_of_a_run_is_what_diffusers_computes() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &CLIP);
    let request = request(&bundle);
    let Explanation { image, noised, trajectory, words } =
        explain(&bundle, &resources(), &request, &mut ()).unwrap();
    let words = words.unwrap();
    let (golden, arrays) = (golden(), npz(&data("explain/run.npz")));
    let error = |name: &str, shape: &[usize], values: &[f32]| {
        assert_eq!(arrays[name].shape, shape, "{name}");
        let error = relative_l2(values, &arrays[name].values);
        println!("{name}: {error:e}");
        error
    };
    assert!(error("latents", &image.latents.shape(), image.latents.values()) < 1e-4);
    assert_eq!(noised.len(), golden["noised"].as_array().unwrap().len());
    for (at, noised) in noised.iter().enumerate() {
        assert_eq!(noised.timestep as u64, golden["noised"][at]);
        assert!(error(&format!("noised.{at}"), &noised.latents.shape(), noised.latents.values()) < 1e-4);
    }
    assert_eq!(trajectory.len(), golden["timesteps"].as_array().unwrap().len());
    for (at, predicted) in trajectory.iter().enumerate() {
        assert_eq!(f64::from(predicted.timestep), golden["timesteps"][at]);
        assert!(
            error(&format!("original.{at}"), &predicted.latents.shape(), predicted.latents.values()) < 1e-4
        );
        let (found, expected) = (predicted.similarity.unwrap(), golden["similarity"][at].as_f64().unwrap());
        println!("similarity {at}: {found} and {expected}");
        // A pixel may be rounded to the other side.
        assert!((f64::from(found) - expected).abs() < 1e-3);
    }
    assert_eq!(words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>(), ["a", "red,", "box"]);
    for (at, (_, map)) in words.iter().enumerate() {
        assert!(error(&format!("map.{at}"), &map.size(), map.values()) < 1e-5);
    }
}

#[test]
fn watching_changes_no_bit_of_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &[]);
    let request = request(&bundle);
    let shown = explain(&bundle, &resources(), &request, &mut ()).unwrap();
    let drawn = TextToImage::new(bundle.clone(), resources()).run(&request, &mut ()).unwrap().remove(0);
    assert_eq!((shown.image.latents, shown.image.pixels), (drawn.latents, drawn.pixels));
    assert!(shown.trajectory.iter().all(|predicted| predicted.similarity.is_none()), "nothing can tell");
    // With guidance in no step, one prompt goes through alone, and its maps are the same at the first step.
    let mut once = Request { steps: 1, ..request };
    let maps = |request: &Request| explain(&bundle, &resources(), request, &mut ()).unwrap().words;
    let guided = maps(&once);
    once.guidance_scale = GuidanceScale::OFF;
    assert_eq!(guided, maps(&once));
}

#[test]
fn sheets_of_every_kind_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &[]);
    let high = |prompt: &str, steps: usize, size: Size| {
        let prompt = Prompt::new(prompt).unwrap();
        let request = Request { prompt: prompt.clone(), steps, size, ..request(&bundle) };
        let explanation = explain(&bundle, &resources(), &request, &mut ()).unwrap();
        let sheet = sheet::draw(prompt.as_str(), "", &explanation);
        assert_eq!(sheet.width_px(), sheet::WIDTH_PX);
        sheet.height_px()
    };
    let size = Size { width_px: 16, height_px: 16 };
    let small = high("a 딸기 🍓", 1, size);
    assert!(high("", 1, size) < small, "there are no words");
    assert!(high("a 딸기 🍓", 9, size) > small, "the ninth step stands in a second row");
    assert!(high("a 딸기 🍓", 1, Size { width_px: 128, height_px: 16 }) < small);
    let long = high("a 딸기 🍓", 1, Size { width_px: 16, height_px: 256 });
    assert_eq!(long, small, "large pictures are scaled down, and small ones up");
    high(&"wordwithoutend".repeat(100), 1, size);
}

#[test]
fn cross_attention_is_found_in_every_topology() {
    let topologies = [
        ("sd15-opset14", 10),
        ("sd15-opset17-fixed", 10),
        ("sd15-dynamo", 10),
        ("sd21", 10),
        ("sdxl", 11),
        ("lcm", 10),
        ("bk-sdm-tiny", 9),
    ];
    for (name, expected) in topologies {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (data("topologies").join(name), folder.path().join("model.tintype"));
        import::import(&source, &target, Precision::F16, &mut |_, _| ()).unwrap();
        let bundle = Arc::new(Bundle::open(&target).unwrap());
        let unet = tintype::engine::Component::load(&bundle, Component::Unet, &resources()).unwrap();
        let (mut unet, layers) = unet.with_cross_attention("encoder_hidden_states", "sample").unwrap();
        let reference = npz(&source.join("unet/reference.npz"));
        let named = reference.iter().map(|(name, a)| NamedTensor::new(name, &a.shape, a.values.clone()));
        let outputs = unet.run(&named.collect::<Vec<_>>()).unwrap();
        println!("{name}: {} layers", layers.len());
        let shape = |name: &str| &outputs.iter().find(|output| output.name == name).unwrap().shape;
        let tokens = reference["encoder_hidden_states"].shape[1];
        for layer in &layers {
            assert_eq!(shape(&layer.queries).len(), 4, "{name}: a map");
            assert_eq!(shape(&layer.keys)[1..2], [tokens], "{name}: tokens");
        }
        assert_eq!(layers.len(), expected, "{name}");
    }
}

#[test]
fn models_that_cannot_be_explained() {
    let folder = tempfile::tempdir().unwrap();
    let judged = bundle(folder.path(), &[("safety_checker", "safety_checker/safety_checker")]);
    let error = explain(&judged, &resources(), &request(&judged), &mut ()).unwrap_err();
    assert!(matches!(error, PipelineError::Request(RequestError::Unjudged)), "{error}");

    let shipped = Arc::new(Bundle::open(&root("models/emoji.tintype")).unwrap());
    let load = |kind| tintype::engine::Component::load(&shipped, kind, &resources()).unwrap();
    let decoder = load(Component::VaeDecoder).with_cross_attention("encoder_hidden_states", "sample");
    assert!(matches!(decoder, Err(EngineError::NoCrossAttention { component: Component::VaeDecoder })));
    let (_, layers) = load(Component::Unet).with_cross_attention("encoder_hidden_states", "sample").unwrap();
    assert_eq!(
        layers.len(),
        10,
        "one at each of three levels on the way down, two on the way up, and one in the middle"
    );
}
