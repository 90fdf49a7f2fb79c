//! What is not given out: the safety checker against diffusers', and concepts that a file names.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{data, root};
use serde_json::Value;
use tintype::bundle::Bundle;
use tintype::clip::{ImageEncoder, SafetyChecker, normalise, similarity};
use tintype::engine::{Resources, Threads};
use tintype::import::{self, ImportError, Precision};
use tintype::kernels::Arithmetic;
use tintype::picture;
use tintype::pipeline::{BlockList, GateError, PipelineError, Request, Size, TextToImage};
use tintype::text::Prompt;

fn resources() -> Resources {
    Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(2)) }
}

/// The small pipeline with a safety checker, whose concepts are changed.
fn checked(folder: &Path, change: impl Fn(&mut Value)) -> Result<Arc<Bundle>, ImportError> {
    let source = folder.join("source");
    for part in ["text_encoder", "tokenizer", "unet", "vae_decoder", "scheduler"] {
        fixture::copy(&data("tiny").join(part), &source.join(part));
    }
    fixture::copy(&data("safety_checker/safety_checker"), &source.join("safety_checker"));
    let path = source.join("safety_checker/concepts.json");
    let mut concepts: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut concepts);
    std::fs::write(&path, concepts.to_string()).unwrap();
    let target = folder.join("checked.tintype");
    import::import(&source, &target, Precision::F32, &mut |_, _| ())?;
    Ok(Arc::new(Bundle::open(&target).unwrap()))
}

fn request(bundle: &Bundle) -> Request {
    let mut request = Request::new(bundle, Prompt::new("a red box").unwrap(), 3).unwrap();
    request.size = Size { width_px: 16, height_px: 32 };
    request.steps = 2;
    request.count = 2;
    request
}

#[test]
fn the_safety_checker_finds_what_that_of_diffusers_finds() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = checked(folder.path(), |_| ()).unwrap();
    let concepts = std::fs::read(data("safety_checker/safety_checker/concepts.json")).unwrap();
    let checker = SafetyChecker::from_json(&concepts).unwrap();
    let concepts: Value = serde_json::from_slice(&concepts).unwrap();
    let mut encoder = ImageEncoder::of_safety_checker(&bundle, &resources()).unwrap();
    let golden: Value =
        serde_json::from_slice(&std::fs::read(data("safety_checker/found.json")).unwrap()).unwrap();
    let numbers = |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let mut blocked = 0;
    for picture in golden["found"].as_array().unwrap() {
        let name = picture["file"].as_str().unwrap();
        let file = std::fs::read(data("pictures").join(name)).unwrap();
        let embedding = encoder.embed(&picture::read(&file).unwrap()).unwrap();
        for (weights, cosines) in [("concept_embeds", "cosines"), ("special_care_embeds", "special")] {
            let pairs = concepts[weights].as_array().unwrap().iter().zip(numbers(&picture[cosines]));
            for (concept, want) in pairs {
                let mut concept = numbers(concept);
                normalise(&mut concept);
                let got = similarity(&embedding, &concept);
                assert!((got - want).abs() < 2e-6, "{name}: {got} is not {want}");
            }
        }
        let found = checker.find(&embedding);
        assert_eq!(!found.is_empty(), picture["blocked"] == true, "{name}: {found:?}");
        blocked += found.len();
    }
    assert_eq!(blocked, 4, "concept 2 is found in one of them only because of a special concept");
}

#[test]
fn a_model_with_a_safety_checker_gives_out_what_passes_it() {
    let folder = tempfile::tempdir().unwrap();
    let thresholds = |threshold: f64| {
        move |concepts: &mut Value| {
            for value in concepts["concept_embeds_weights"].as_array_mut().unwrap() {
                *value = threshold.into();
            }
        }
    };
    let draw = |bundle: Arc<Bundle>| {
        let mut pipeline = TextToImage::new(bundle.clone(), resources());
        let seeds: Vec<u64> =
            pipeline.run(&request(&bundle), &mut ()).unwrap().iter().map(|image| image.seed).collect();
        let blocked: Vec<_> = pipeline.blocked().iter().map(|b| (b.seed, b.concepts.len())).collect();
        (seeds, blocked)
    };
    let lenient = checked(&folder.path().join("1"), thresholds(1.0)).unwrap();
    assert_eq!(draw(lenient), (vec![3, 4], vec![]));
    let strict = checked(&folder.path().join("2"), thresholds(-1.0)).unwrap();
    assert_eq!(draw(strict), (vec![], vec![(3, 17), (4, 17)]));
    let broken =
        checked(&folder.path().join("3"), |concepts| concepts["concept_embeds"] = Value::Array(vec![]));
    assert!(matches!(broken.unwrap_err(), ImportError::Config { .. }));
}

#[test]
fn a_list_blocks_what_the_shipped_model_draws() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Arc::new(Bundle::open(&root("models/emoji.tintype")).unwrap());
    let mut request =
        Request::new(&bundle, Prompt::new("a glossy strawberry on a blue background").unwrap(), 7).unwrap();
    request.steps = 4;
    let path = folder.path().join("block.txt");
    let draw = |list: &str| {
        std::fs::write(&path, list).unwrap();
        let concepts = BlockList::read(&path)?.concepts(&bundle, &resources())?;
        let mut pipeline = TextToImage::new(bundle.clone(), resources()).without(Some(concepts));
        let images = pipeline.run(&request, &mut ())?;
        let found = pipeline.blocked().iter().flat_map(|b| b.concepts.clone());
        Ok::<_, Box<dyn std::error::Error>>((images.len(), found.collect::<Vec<_>>()))
    };
    let (images, found) = draw("-1 a strawberry\n-1 a cat").unwrap();
    assert_eq!((images, found.len()), (0, 2));
    let (strawberry, cat) = (found[0].score, found[1].score);
    assert!(strawberry > cat, "{strawberry} and {cat}");
    let between = (strawberry + cat) / 2.0;
    let (images, found) = draw(&format!("{between} a cat\n{between} a strawberry")).unwrap();
    assert_eq!((images, &found[0].concept[..], found.len()), (0, "a strawberry", 1));
    let (images, found) = draw(&format!("{between} a cat")).unwrap();
    assert_eq!((images, found.len()), (1, 0));

    let width = draw(r#"[{"embedding": [1, 2], "threshold": 0.5}]"#).unwrap_err();
    let width = width.downcast_ref::<PipelineError>().unwrap();
    assert!(matches!(width, PipelineError::Gate(GateError::Width { got: 2, .. })), "{width}");
}

#[test]
fn a_model_that_cannot_judge_draws_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Arc::new(Bundle::open(&fixture::tiny(folder.path(), Precision::F32)).unwrap());
    let path = folder.path().join("block.txt");
    std::fs::write(&path, "0.2 a gun").unwrap();
    let refused = BlockList::read(&path).unwrap().concepts(&bundle, &resources()).unwrap_err();
    assert!(matches!(refused, PipelineError::Gate(GateError::Encoder(_))), "{refused}");
}
