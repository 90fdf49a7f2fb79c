//! What saves time for another picture, against diffusers that does the same: deep features that are used again by a hook, tokens
//! that the published code merges; and what must not change with them.

mod fixture;

use std::sync::Arc;

use fixture::{data, npz, relative_l2};
use tintype::bundle::{self, Bundle};
use tintype::denoise::FeatureCache;
use tintype::denoise::guidance::{GuidanceInterval, GuidanceScale};
use tintype::denoise::noise::TorchGenerator;
use tintype::denoise::unet::{Input, Unet};
use tintype::engine::{Component, EngineError, Resources, Threads, TokenMerging};
use tintype::import::Precision;
use tintype::kernels::Arithmetic;
use tintype::pipeline::{
    Halfway, PipelineError, Progress, Request, RequestError, Sampler, Size, Step, TextToImage, footprints,
};
use tintype::tensor::{Latents, TextEmbedding};
use tintype::text::Prompt;

fn open() -> (tempfile::TempDir, Arc<Bundle>) {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Arc::new(Bundle::open(&fixture::tiny(folder.path(), Precision::F32)).unwrap());
    (folder, bundle)
}

fn resources() -> Resources {
    Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(2)) }
}

/// Six steps with guidance, and features for two steps each.
fn request(bundle: &Bundle) -> Request {
    Request {
        negative: Prompt::new("blue").unwrap(),
        steps: 6,
        size: Size { width_px: 48, height_px: 32 },
        guidance_scale: GuidanceScale::new(4.0).unwrap(),
        feature_cache: 2,
        sampler: Sampler::DpmSolver,
        ..Request::new(bundle, Prompt::new("a red box").unwrap(), 3).unwrap()
    }
}

fn draw(bundle: &Arc<Bundle>, resources: Resources, request: &Request) -> Result<Latents, PipelineError> {
    let mut images = TextToImage::new(bundle.clone(), resources).run(request, &mut ())?;
    Ok(images.pop().unwrap().latents)
}

/// How far latents are from those of `reference/NAME.npz`, as they were asked for there and without what saves time, for each run.
fn errors(name: &str) -> Vec<[f64; 2]> {
    let (_folder, bundle) = open();
    let golden = std::fs::read(data(&format!("tiny/reference/{name}.json"))).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let reference = npz(&data(&format!("tiny/reference/{name}.npz")));
    let errors = golden["runs"].as_array().unwrap().iter().enumerate().map(|(at, run)| {
        let number = |key: &str| run[key].as_u64().unwrap() as usize;
        let prompt = |key: &str| Prompt::new(run[key].as_str().unwrap()).unwrap();
        let exact = Request {
            negative: prompt("negative"),
            steps: number("steps"),
            size: Size { width_px: number("width"), height_px: number("height") },
            guidance_scale: GuidanceScale::new(run["guidance"].as_f64().unwrap() as f32).unwrap(),
            sampler: Sampler::from_name(run["sampler"].as_str().unwrap()).unwrap(),
            ..Request::new(&bundle, prompt("prompt"), number("seed") as u64).unwrap()
        };
        let request = Request {
            feature_cache: run["feature_cache"].as_u64().map_or(1, |every| every as usize),
            token_merging: TokenMerging::new(run["token_merging"].as_f64().unwrap_or(0.0)).unwrap(),
            ..exact.clone()
        };
        let expected = &reference[&format!("latents.{at}")];
        [request, exact].map(|request| {
            relative_l2(draw(&bundle, resources(), &request).unwrap().values(), &expected.values)
        })
    });
    errors.inspect(|[error, exact]| println!("{error:e}, and without {exact:e}")).collect()
}

#[test]
fn features_are_used_again_as_by_a_hook_in_diffusers() {
    for [cached, exact] in errors("cached") {
        // The most is Euler ancestral's, which begins at a noise of 4096.
        assert!(cached < 2e-5, "{cached:e}");
        assert!(exact > 1e-2, "the features make no difference");
    }
}

#[test]
fn tokens_are_merged_as_by_the_published_code() {
    for [merged, exact] in errors("merged") {
        // The most is Euler's, which begins at a noise of 4096.
        assert!(merged < 1e-4, "{merged:e}");
        assert!(exact > 1e-2, "the tokens make no difference");
    }
}

#[test]
fn tokens_are_merged_in_every_way_of_asking_a_network() {
    let (_folder, bundle) = open();
    let token_merging = TokenMerging::new(0.5).unwrap();
    let request = Request { token_merging, feature_cache: 1, ..request(&bundle) };
    let merged = draw(&bundle, resources(), &request).unwrap();
    let none = Request { token_merging: TokenMerging::NONE, ..request.clone() };
    assert_ne!(merged, draw(&bundle, resources(), &none).unwrap());
    let alone = Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(1)) };
    assert_eq!(merged, draw(&bundle, alone, &request).unwrap(), "the number of threads changes no bit");
    let both = draw(&bundle, resources(), &Request { feature_cache: 2, ..request.clone() }).unwrap();
    assert_ne!(both, merged);
}

#[test]
fn what_is_not_used_again_changes_no_bit() {
    let (_folder, bundle) = open();
    let request = request(&bundle);
    let draw = |request: &Request| draw(&bundle, resources(), request).unwrap();
    let cached = draw(&request);
    let exact = draw(&Request { feature_cache: 1, ..request.clone() });
    assert_ne!(cached, exact);
    // Guidance comes and goes between steps that share features: where a prompt has none, all of the network runs.
    let interval = |from, to| {
        let guidance_interval = GuidanceInterval::new(from, to).unwrap();
        draw(&Request { guidance_interval, feature_cache: 6, ..request.clone() })
    };
    assert_ne!(interval(0.5, 1.0), interval(0.0, 0.5));
    let once = |feature_cache| draw(&Request { steps: 1, feature_cache, ..request.clone() });
    assert_eq!(once(1), once(5), "the first step runs all of the network");
    // Pictures of one request share nothing.
    let second = draw(&Request { seed: request.seed - 1, count: 2, ..request.clone() });
    assert_eq!(cached, second);
}

#[test]
fn one_prompt_at_a_time_gives_the_same_bits() {
    let bundle = Arc::new(Bundle::open(&fixture::root("models/emoji.tintype")).unwrap());
    let size = Size { width_px: 128, height_px: 128 };
    // What only just is not enough for both.
    let unet = [bundle::Component::Unet];
    let memory_bytes = Some(footprints(&bundle, &unet, size, &resources()).unwrap()[0].peak_anon_bytes);
    let request = Request { size, ..Request::new(&bundle, Prompt::new("").unwrap(), 0).unwrap() };
    let [_, channels, height, width] = request.latent_shape(&bundle);
    let noise = |seed, len: usize| {
        let mut noise = vec![0.0; len];
        TorchGenerator::new(seed).fill_normal(&mut noise);
        noise
    };
    let text = |seed| TextEmbedding::new(noise(seed, 24 * 128), 24, 128).unwrap();
    let (texts, scale) = ([text(1), text(2)], GuidanceScale::new(3.0).unwrap());
    let predict = |resources: Resources, guided: [bool; 4]| {
        let mut unet = Unet::load(&bundle, &resources).unwrap().caching_features(3).unwrap();
        let step = |(done, guided): (usize, bool)| {
            let values = noise(10 + done as u64, channels * height * width);
            let latents = Latents::new(values, channels, height, width).unwrap();
            let input = Input { divisor: 1.0, timestep: 900.0 - 200.0 * done as f32, beside: None };
            unet.begin_step(done);
            match guided {
                true => unet.predict_both(&latents, input, [&texts[0], &texts[1]], scale).unwrap().concat(),
                false => unet.predict(&latents, input, &texts[0], scale).unwrap(),
            }
        };
        guided.into_iter().enumerate().map(step).collect::<Vec<_>>()
    };
    for guided in [[true; 4], [true, false, true, false], [false, true, true, true]] {
        let tight = predict(Resources { memory_bytes, ..resources() }, guided);
        assert_eq!(tight, predict(resources(), guided), "{guided:?}");
    }
}

/// Keeps the states after all steps but the last.
#[derive(Default)]
struct Keep(Vec<Halfway>);

impl Progress for Keep {
    fn step(&mut self, step: Step) {
        let (latents, memory) = (step.latents.clone(), step.memory.to_vec());
        self.0.push(Halfway { done: step.done, latents, memory });
    }
}

#[test]
fn a_run_goes_on_where_features_are_made_anew() {
    let (_folder, bundle) = open();
    let request = request(&bundle);
    let mut keep = Keep::default();
    let mut pipeline = TextToImage::new(bundle.clone(), resources());
    let whole = pipeline.run(&request, &mut keep).unwrap().remove(0).latents;
    let from = |done: usize| {
        let halfway = Some(keep.0[done - 1].clone());
        draw(&bundle, resources(), &Request { halfway, ..request.clone() })
    };
    assert_eq!([from(2).unwrap(), from(4).unwrap()], [whole.clone(), whole]);
    for done in [1, 3, 5] {
        let error = from(done).unwrap_err();
        assert!(matches!(error, PipelineError::Request(RequestError::Halfway { .. })), "{error}");
    }
}

#[test]
fn what_cannot_be_cached_is_refused_before_any_work() {
    let (_folder, bundle) = open();
    let request = request(&bundle);
    for got in [0, 1001] {
        let error =
            draw(&bundle, resources(), &Request { feature_cache: got, ..request.clone() }).unwrap_err();
        assert!(matches!(error, PipelineError::Request(RequestError::FeatureCache { .. })), "{error}");
    }
    let encoder = || Component::load(&bundle, bundle::Component::TextEncoder, &resources()).unwrap();
    let error = FeatureCache::new(&mut encoder(), 2).err().unwrap();
    assert!(
        matches!(error, EngineError::NoDeepFeatures { component: bundle::Component::TextEncoder }),
        "{error}"
    );
    for share in [-0.1, 0.76, f64::NAN] {
        let error = TokenMerging::new(share).unwrap_err();
        assert!(error.to_string().contains("expected 0 (none) to 0.75"), "{error}");
    }
    // A sentence is no map, and sees no token before its own.
    let error = encoder().merge_tokens(TokenMerging::new(0.5).unwrap()).unwrap_err();
    assert!(
        matches!(error, EngineError::NoSelfAttention { component: bundle::Component::TextEncoder }),
        "{error}"
    );
}
