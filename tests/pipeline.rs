//! The engine and the pipelines against torch and diffusers, on the same weights.
//!
//! `tests/data/README.md` says how the references were made. Measured: components 1e-6 or less, trajectories
//! 4e-7; the bounds leave room for another machine's order of summation.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{data, npz, psnr_db, relative_l2, root};
use tintype::bundle::{self, Bundle};
use tintype::denoise::guidance::{GuidanceInterval, GuidanceScale};
use tintype::denoise::noise::TorchGenerator;
use tintype::denoise::unet::{Input, Unet};
use tintype::engine::{Component, NamedTensor, Resources, Threads};
use tintype::import::{self, Precision};
use tintype::kernels::Arithmetic;
use tintype::pipeline::{
    Halfway, Image, Progress, Request, RequestError, Sampler, Size, Step, TextToImage, footprints,
};
use tintype::tensor::Latents;
use tintype::text::encoder::TextEncoder;
use tintype::text::{Prompt, Syntax};

fn open(precision: Precision) -> (tempfile::TempDir, Arc<Bundle>) {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Arc::new(Bundle::open(&fixture::tiny(folder.path(), precision)).unwrap());
    (folder, bundle)
}

/// The largest relative error over a component's outputs, against torch.
fn component_error(bundle: &Arc<Bundle>, kind: bundle::Component, threads: usize) -> f64 {
    let reference = npz(&data(&format!("tiny/reference/{kind}.npz")));
    let mut component = Component::load(bundle, kind, &Resources::new(Threads::new(threads))).unwrap();
    let named = |(name, array): (&String, &fixture::Array)| {
        NamedTensor::new(name, &array.shape, array.values.clone())
    };
    let inputs: Vec<NamedTensor> = reference.iter().map(named).collect();
    let outputs = component.run(&inputs).unwrap();
    assert!(!outputs.is_empty());
    let error = |output: &NamedTensor| {
        assert_eq!(output.shape, reference[&output.name].shape, "{}", output.name);
        relative_l2(&output.values, &reference[&output.name].values)
    };
    outputs.iter().map(error).fold(0.0, f64::max)
}

const COMPONENTS: [bundle::Component; 4] = [
    bundle::Component::TextEncoder,
    bundle::Component::Unet,
    bundle::Component::VaeDecoder,
    bundle::Component::VaeEncoder,
];

#[test]
fn components_with_f32_weights_match_torch() {
    let (_folder, bundle) = open(Precision::F32);
    for kind in COMPONENTS {
        let error = component_error(&bundle, kind, 1);
        assert!(error < 1e-5, "{kind}: {error:e}");
    }
}

#[test]
fn components_with_fewer_bits_stay_near_torch() {
    for (precision, bound) in [(Precision::F16, 2e-3), (Precision::Int8, 5e-2)] {
        let (_folder, bundle) = open(precision);
        for kind in COMPONENTS {
            let error = component_error(&bundle, kind, 1);
            assert!(error < bound && error > 0.0, "{kind} {precision:?}: {error:e}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (_folder, bundle) = open(Precision::Int8);
    let draw = |arithmetic, threads| {
        let mut request = Request::new(&bundle, Prompt::new("a red box").unwrap(), 5).unwrap();
        request.steps = 2;
        request.size = Size { width_px: 48, height_px: 64 };
        let resources = Resources { arithmetic, ..Resources::new(Threads::new(threads)) };
        let mut pipeline = TextToImage::new(bundle.clone(), resources);
        pipeline.run(&request, &mut ()).unwrap().remove(0).latents
    };
    for arithmetic in Arithmetic::ALL {
        let one = draw(arithmetic, 1);
        assert_eq!(one, draw(arithmetic, 2), "{arithmetic:?}");
        assert_eq!(one, draw(arithmetic, 3), "{arithmetic:?}");
    }
}

#[test]
fn one_pass_for_both_prompts_changes_no_bit() {
    let bundle = Arc::new(Bundle::open(&root("models/emoji.tintype")).unwrap());
    let size = Size { width_px: 64, height_px: 64 };
    let peak = |resources: &Resources| {
        footprints(&bundle, &[bundle::Component::Unet], size, resources).unwrap()[0].peak_anon_bytes
    };
    let encode = |prompt: &str| {
        let mut encoder = TextEncoder::load(&bundle, &Resources::new(Threads::new(1))).unwrap();
        let chunks = encoder.chunks(&Prompt::new(prompt).unwrap(), Syntax::Plain).unwrap();
        encoder.encode(&chunks, 1).unwrap()
    };
    let texts = [encode("a red box"), encode("")];
    let [_, channels, height, width] =
        Request { size, ..Request::new(&bundle, Prompt::new("").unwrap(), 0).unwrap() }.latent_shape(&bundle);
    let mut noise = vec![0.0; channels * height * width];
    TorchGenerator::new(1).fill_normal(&mut noise);
    let latents = Latents::new(noise, channels, height, width).unwrap();
    let predict = |resources: &Resources| {
        let mut unet = Unet::load(&bundle, resources).unwrap();
        let input = Input { divisor: 1.0, timestep: 700.0, beside: None };
        let scale = GuidanceScale::new(3.0).unwrap();
        unet.predict_both(&latents, input, [&texts[0], &texts[1]], scale).unwrap()
    };
    for arithmetic in Arithmetic::ALL {
        let roomy = Resources { arithmetic, ..Resources::new(Threads::new(2)) };
        let tight = Resources { memory_bytes: Some(peak(&roomy) - 1), ..roomy.clone() };
        assert!(peak(&tight) < peak(&roomy), "it is one prompt at a time then");
        let both = predict(&roomy);
        assert_ne!(both[0], both[1]);
        assert_eq!(both, predict(&tight), "{arithmetic:?}");
    }
}

#[derive(serde::Deserialize)]
struct Golden {
    runs: Vec<Run>,
}

#[derive(serde::Deserialize)]
struct Run {
    prompt: String,
    negative: String,
    seed: u64,
    steps: usize,
    guidance: f32,
    eta: Option<f32>,
    sampler: Option<String>,
    width: usize,
    height: usize,
}

fn draw(bundle: &Arc<Bundle>, run: &Run, arithmetic: Arithmetic) -> Image {
    let mut request = Request::new(bundle, Prompt::new(run.prompt.clone()).unwrap(), run.seed).unwrap();
    request.negative = Prompt::new(run.negative.clone()).unwrap();
    request.steps = run.steps;
    request.guidance_scale = GuidanceScale::new(run.guidance).unwrap();
    request.eta = run.eta;
    if let Some(name) = &run.sampler {
        request.sampler = Sampler::from_name(name).unwrap();
    }
    request.size = Size { width_px: run.width, height_px: run.height };
    let resources = Resources { arithmetic, ..Resources::new(Threads::new(2)) };
    TextToImage::new(bundle.clone(), resources).run(&request, &mut ()).unwrap().remove(0)
}

/// What diffusers drew: the runs of `<name>.json` with the latents and pixels of `<name>.npz`.
fn golden(name: &str) -> Vec<(Run, fixture::Array, fixture::Array)> {
    let golden = std::fs::read(data(&format!("{name}.json"))).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let mut reference = npz(&data(&format!("{name}.npz")));
    assert!(golden.runs.len() >= 3);
    let mut take = |kind, at| reference.remove(&format!("{kind}.{at}")).unwrap();
    let runs = golden.runs.into_iter().enumerate();
    runs.map(|(at, run)| (run, take("latents", at), take("pixels", at))).collect()
}

/// Draws every run with f32 weights and holds it against what diffusers drew.
fn matches_diffusers(bundle: &Arc<Bundle>, name: &str) {
    for (at, (run, latents, pixels)) in golden(name).iter().enumerate() {
        let image = draw(bundle, run, Arithmetic::F32);
        assert_eq!(image.latents.shape(), latents.shape[..]);
        let error = relative_l2(image.latents.values(), &latents.values);
        assert!(error < 1e-4, "run {at}: latents off by {error:e}");
        assert_eq!([image.pixels.height_px(), image.pixels.width_px(), 3], pixels.shape[..]);
        let off = image.pixels.pixels().iter().zip(&pixels.values).map(|(&a, b)| (f32::from(a) - b).abs());
        // A value next to a rounding boundary may fall on the other side.
        assert!(off.fold(0.0, f32::max) <= 1.0, "run {at}: pixels differ");
    }
}

#[test]
fn whole_pictures_match_the_diffusers_pipeline() {
    let (_folder, bundle) = open(Precision::F32);
    matches_diffusers(&bundle, "tiny/reference/pipeline");
}

/// Draws every run with f32 weights and holds its latents against those that diffusers drew.
fn latents_match_diffusers(bundle: &Arc<Bundle>, name: &str) {
    let golden: Golden =
        serde_json::from_slice(&std::fs::read(data(&format!("{name}.json"))).unwrap()).unwrap();
    let reference = npz(&data(&format!("{name}.npz")));
    for (at, run) in golden.runs.iter().enumerate() {
        let (image, latents) = (draw(bundle, run, Arithmetic::F32), &reference[&format!("latents.{at}")]);
        assert_eq!(image.latents.shape(), latents.shape[..]);
        let error = relative_l2(image.latents.values(), &latents.values);
        println!("{name}, {:?}: {error:e}", run.sampler);
        assert!(error < 1e-4, "{name}, {:?}: latents off by {error:e}", run.sampler);
    }
}

#[test]
fn every_sampler_draws_as_that_of_diffusers() {
    let (_folder, bundle) = open(Precision::F32);
    latents_match_diffusers(&bundle, "tiny/reference/samplers");
}

/// Keeps the state after some steps.
struct Keep {
    steps: usize,
    state: Option<Halfway>,
}

impl Progress for Keep {
    fn step(&mut self, step: Step) {
        if step.done == self.steps {
            let (latents, memory) = (step.latents.clone(), step.memory.to_vec());
            self.state = Some(Halfway { done: step.done, latents, memory });
        }
    }
}

#[test]
fn guidance_in_a_part_of_the_steps_is_that_of_runs_in_turn() {
    let (_folder, bundle) = open(Precision::F32);
    let off = GuidanceScale::OFF;
    // One that draws the next step from the last, and one that adds noise in each.
    for sampler in [Sampler::DpmSolver, Sampler::EulerAncestral] {
        let request = Request {
            negative: Prompt::new("blue").unwrap(),
            steps: 6,
            guidance_scale: GuidanceScale::new(4.0).unwrap(),
            sampler,
            ..Request::new(&bundle, Prompt::new("a red box").unwrap(), 3).unwrap()
        };
        let draw = |request: &Request, progress: &mut dyn Progress| {
            let resources = Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(1)) };
            let mut pipeline = TextToImage::new(bundle.clone(), resources);
            pipeline.run(request, progress).unwrap().remove(0).latents
        };
        let within = |from, to| {
            let guidance_interval = GuidanceInterval::new(from, to).unwrap();
            draw(&Request { guidance_interval, ..request.clone() }, &mut ())
        };
        let (guided, free) =
            (draw(&request, &mut ()), draw(&Request { guidance_scale: off, ..request.clone() }, &mut ()));
        assert_ne!(guided, free);
        assert_eq!(within(0.0, 1.0), guided);
        assert_eq!(within(0.0, 0.0), free);
        // The scales of runs of whole steps, each going on from the one before.
        let in_turn = |parts: &[(usize, GuidanceScale)]| {
            let mut halfway = None;
            let mut latents = None;
            for &(steps, guidance_scale) in parts {
                let mut keep = Keep { steps, state: None };
                let part = Request { guidance_scale, halfway: halfway.take(), ..request.clone() };
                latents = Some(draw(&part, &mut keep));
                halfway = keep.state;
            }
            latents.unwrap()
        };
        let on = request.guidance_scale;
        assert_eq!(within(0.0, 0.5), in_turn(&[(3, on), (6, off)]), "{sampler:?}");
        assert_eq!(within(0.5, 1.0), in_turn(&[(3, off), (6, on)]), "{sampler:?}");
        assert_eq!(within(0.34, 0.66), in_turn(&[(2, off), (4, on), (6, off)]), "{sampler:?}");
    }
}

/// The small pipeline with the UNet of the topology `lcm` and its scheduler, imported.
fn lcm(folder: &Path) -> Arc<Bundle> {
    let source = folder.join("lcm");
    for part in ["text_encoder", "tokenizer", "vae_decoder"] {
        fixture::copy(&data("tiny").join(part), &source.join(part));
    }
    fixture::copy(&data("topologies/lcm/unet"), &source.join("unet"));
    std::fs::create_dir(source.join("scheduler")).unwrap();
    let golden = std::fs::read(data("topologies/lcm/drawn.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let scheduler = golden["scheduler"].to_string();
    std::fs::write(source.join("scheduler/scheduler_config.json"), scheduler).unwrap();
    std::fs::copy(data("tiny/model_index.json"), source.join("model_index.json")).unwrap();
    let target = folder.join("lcm.tintype");
    import::import(&source, &target, Precision::F32, &mut |_, _| ()).unwrap();
    Arc::new(Bundle::open(&target).unwrap())
}

#[test]
fn a_network_that_is_told_the_guidance_scale_draws_as_in_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = lcm(folder.path());
    let own = Request::new(&bundle, Prompt::new("a red box").unwrap(), 1).unwrap();
    assert_eq!((own.sampler, own.steps, own.guidance_scale.get()), (Sampler::Lcm, 4, 8.5));
    let partly = Request { guidance_interval: GuidanceInterval::new(0.0, 0.5).unwrap(), ..own };
    assert!(matches!(partly.check(&bundle), Err(RequestError::ToldGuidance)));
    latents_match_diffusers(&bundle, "topologies/lcm/drawn");
}

#[test]
fn the_shipped_model_matches_the_diffusers_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("emoji.tintype");
    import::import(&root("models/source"), &target, Precision::F32, &mut |_, _| ()).unwrap();
    matches_diffusers(&Arc::new(Bundle::open(&target).unwrap()), "shipped");
}

#[test]
fn the_shipped_int8_pictures_stay_near_diffusers() {
    let bundle = Arc::new(Bundle::open(&root("models/emoji.tintype")).unwrap());
    for (arithmetic, bound_db) in [(Arithmetic::F32, 45.0), (Arithmetic::I16, 45.0), (Arithmetic::I8, 40.0)] {
        for (at, (run, _, pixels)) in golden("shipped").iter().enumerate() {
            let image = draw(&bundle, run, arithmetic);
            let psnr_db = psnr_db(image.pixels.pixels(), &pixels.values);
            println!("{arithmetic:?}, run {at}: {psnr_db:.1} dB");
            assert!(psnr_db >= bound_db, "{arithmetic:?}, run {at}: {psnr_db:.1} dB");
        }
    }
}
