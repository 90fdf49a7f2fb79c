//! Prompts in A1111's syntax, and text encoders without their last layers, against torch and diffusers.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{data, npz, relative_l2, root};
use serde_json::Value;
use tintype::bundle::Bundle;
use tintype::denoise::guidance::GuidanceScale;
use tintype::engine::{EngineError, Resources, Threads};
use tintype::import::{self, Precision};
use tintype::kernels::Arithmetic;
use tintype::pipeline::{InitImage, PipelineError, Request, RequestError, Size, TextToImage, read_picture};
use tintype::tensor::Latents;
use tintype::text::encoder::TextEncoder;
use tintype::text::weighted::{Part, parse};
use tintype::text::{Prompt, Syntax};

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(data("weighted/weighted.json")).unwrap()).unwrap()
}

fn resources() -> Resources {
    Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(2)) }
}

fn tiny(folder: &Path) -> Arc<Bundle> {
    Arc::new(Bundle::open(&fixture::tiny(folder, Precision::F32)).unwrap())
}

/// The small pipeline with a UNet that takes any number of tokens, and is shown a mask.
fn roomy(folder: &Path) -> Arc<Bundle> {
    Arc::new(Bundle::open(&fixture::inpainting(folder, Precision::F32)).unwrap())
}

#[test]
fn prompts_are_read_and_embedded_as_by_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let mut encoder = TextEncoder::load(&tiny(folder.path()), &resources()).unwrap();
    let reference = npz(&data("weighted/weighted.npz"));
    let golden = golden();
    for (at, case) in golden["prompts"].as_array().unwrap().iter().enumerate() {
        let prompt = case["prompt"].as_str().unwrap();
        let parts: Vec<Part> = serde_json::from_value::<Vec<(Option<String>, f64)>>(case["parts"].clone())
            .unwrap()
            .into_iter()
            .map(|(text, weight)| text.map_or(Part::Break, |text| Part::Text(text, weight)))
            .collect();
        assert_eq!(parse(prompt).unwrap(), parts, "{prompt:?}");
        let chunks = encoder.chunks(&Prompt::new(prompt).unwrap(), Syntax::A1111).unwrap();
        let embedding = encoder.encode(&chunks, 1).unwrap();
        let want = &reference[&format!("embedding.{at}")];
        assert_eq!([embedding.tokens(), embedding.width()], want.shape[..], "{prompt:?}");
        let error = relative_l2(embedding.values(), &want.values);
        println!("{prompt:?}: {error:e}");
        assert!(error < 1e-5, "{prompt:?}: off by {error:e}");
    }
}

fn request(bundle: &Bundle, run: &Value) -> Request {
    let text = |key: &str| Prompt::new(run[key].as_str().unwrap()).unwrap();
    let mut request = Request::new(bundle, text("prompt"), run["seed"].as_u64().unwrap()).unwrap();
    request.negative = text("negative");
    request.steps = run["steps"].as_u64().unwrap() as usize;
    request.guidance_scale = GuidanceScale::new(run["guidance"].as_f64().unwrap() as f32).unwrap();
    request.syntax = serde_json::from_value(run["syntax"].clone()).unwrap();
    request.clip_skip = run["clip_skip"].as_u64().unwrap() as usize;
    request.size = Size { width_px: 32, height_px: 32 };
    if request.syntax == Syntax::A1111 {
        let picture = |name: &str| read_picture(&data("weighted").join(name)).unwrap();
        let mask = picture("mask.png");
        request.init =
            Some(InitImage::new(&picture("picture.png"), Some(&mask), None, request.size).unwrap());
    }
    request
}

fn draw(bundle: &Arc<Bundle>, request: &Request) -> Result<Latents, PipelineError> {
    Ok(TextToImage::new(bundle.clone(), resources()).run(request, &mut ())?.remove(0).latents)
}

#[test]
fn pictures_match_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let (tiny, roomy) = (tiny(folder.path()), roomy(folder.path()));
    let reference = npz(&data("weighted/weighted.npz"));
    for (at, run) in golden()["runs"].as_array().unwrap().iter().enumerate() {
        let bundle = if run["syntax"] == "plain" { &tiny } else { &roomy };
        let latents = draw(bundle, &request(bundle, run)).unwrap();
        let error = relative_l2(latents.values(), &reference[&format!("latents.{at}")].values);
        println!("{at}: {error:e}");
        assert!(error < 1e-4, "{run}: off by {error:e}");
    }
}

#[test]
fn a_prompt_without_syntax_means_the_same_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = tiny(folder.path());
    let run = &golden()["runs"][0];
    let plain = Request { clip_skip: 0, ..request(&bundle, run) };
    let weighted = Request { syntax: Syntax::A1111, ..plain.clone() };
    assert_eq!(draw(&bundle, &plain).unwrap(), draw(&bundle, &weighted).unwrap());
    // In plain syntax a parenthesis is one.
    let parenthesis = |prompt: &str| Request { prompt: Prompt::new(prompt).unwrap(), ..plain.clone() };
    let [with, without] =
        ["a (red:1.3) box", "a red box"].map(|prompt| draw(&bundle, &parenthesis(prompt)).unwrap());
    assert_ne!(with, without);
}

#[test]
fn requests_that_cannot_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = tiny(folder.path());
    let plain = request(&bundle, &golden()["runs"][0]);
    let long =
        Request { syntax: Syntax::A1111, prompt: Prompt::new("x".repeat(76)).unwrap(), ..plain.clone() };
    let refused = draw(&bundle, &long).unwrap_err();
    let tokens = RequestError::Tokens { expected: 77, got: 154 }.to_string();
    assert_eq!(refused.to_string(), tokens);
    let weight =
        Request { syntax: Syntax::A1111, negative: Prompt::new("(a:1.2.3)").unwrap(), ..plain.clone() };
    assert!(matches!(weight.check(&bundle), Err(RequestError::Weight(_))));
    let deep = Request { clip_skip: 3, ..plain };
    let refused = draw(&bundle, &deep).unwrap_err();
    assert!(matches!(refused.engine(), Some(EngineError::Layers { wanted: 3, got: 2, .. })), "{refused}");
}

#[test]
fn layers_are_told_apart_in_every_text_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["sd15-opset14", "sd15-opset17-fixed", "sd15-dynamo", "sd21"];
    let mut bundles: Vec<Arc<Bundle>> = vec![Arc::new(Bundle::open(&root("models/emoji.tintype")).unwrap())];
    for name in names.iter().filter(|name| data("topologies").join(name).join("text_encoder").exists()) {
        let source = folder.path().join(name);
        fixture::copy(&data("topologies").join(name).join("text_encoder"), &source.join("text_encoder"));
        for part in ["tokenizer", "scheduler"] {
            fixture::copy(&data("tiny").join(part), &source.join(part));
        }
        let target = folder.path().join(format!("{name}.tintype"));
        import::import(&source, &target, Precision::F32, &mut |_, _| ()).unwrap();
        bundles.push(Arc::new(Bundle::open(&target).unwrap()));
    }
    assert!(bundles.len() >= 4, "{}", bundles.len());
    for bundle in bundles {
        let entry = bundle.component(tintype::bundle::Component::TextEncoder).unwrap();
        let layers = entry.config["num_hidden_layers"].as_u64().unwrap() as usize;
        let skip = |count| {
            tintype::engine::Component::load(&bundle, tintype::bundle::Component::TextEncoder, &resources())
                .unwrap()
                .without_last_layers("last_hidden_state", count)
        };
        assert!(skip(layers).is_ok());
        assert!(matches!(skip(layers + 1), Err(EngineError::Layers { got, .. }) if got == layers));
    }
}
