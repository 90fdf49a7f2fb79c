//! Pictures drawn from given ones, whole and in parts, against diffusers' pipelines with the same networks and seeds.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{data, npz, relative_l2};
use tintype::bundle::Bundle;
use tintype::denoise::guidance::GuidanceScale;
use tintype::engine::{Resources, Threads};
use tintype::import::Precision;
use tintype::kernels::Arithmetic;
use tintype::pipeline::{
    Halfway, Image, InitImage, Progress, Request, RequestError, Sampler, Size, Step, TextToImage,
    read_picture,
};
use tintype::text::Prompt;

#[derive(serde::Deserialize)]
struct Run {
    kind: String,
    prompt: String,
    negative: String,
    seed: u64,
    steps: usize,
    strength: f64,
    guidance: f32,
    eta: Option<f32>,
    sampler: String,
    width: usize,
    height: usize,
}

fn runs() -> Vec<Run> {
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data("given/drawn.json")).unwrap()).unwrap();
    serde_json::from_value(golden["runs"].clone()).unwrap()
}

fn tiny(folder: &Path) -> Arc<Bundle> {
    Arc::new(Bundle::open(&fixture::tiny(folder, Precision::F32)).unwrap())
}

/// The small pipeline with the UNet that is shown a mask.
fn inpainting(folder: &Path) -> Arc<Bundle> {
    Arc::new(Bundle::open(&fixture::inpainting(folder, Precision::F32)).unwrap())
}

fn request(bundle: &Bundle, run: &Run) -> Request {
    let mut request = Request::new(bundle, Prompt::new(run.prompt.clone()).unwrap(), run.seed).unwrap();
    request.negative = Prompt::new(run.negative.clone()).unwrap();
    request.steps = run.steps;
    request.guidance_scale = GuidanceScale::new(run.guidance).unwrap();
    request.eta = run.eta;
    request.sampler = Sampler::from_name(&run.sampler).unwrap();
    request.size = Size { width_px: run.width, height_px: run.height };
    let picture = read_picture(&data("given/picture.png")).unwrap();
    let mask = (run.kind != "picture").then(|| read_picture(&data("given/mask.png")).unwrap());
    let init = InitImage::new(&picture, mask.as_ref(), Some(run.strength), request.size).unwrap();
    request.init = Some(init);
    request
}

fn draw(bundle: &Arc<Bundle>, request: &Request, progress: &mut dyn Progress) -> Vec<Image> {
    let resources = Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(2)) };
    TextToImage::new(bundle.clone(), resources).run(request, progress).unwrap()
}

#[test]
fn pictures_from_pictures_match_diffusers() {
    let folder = tempfile::tempdir().unwrap();
    let (tiny, inpainting) = (tiny(folder.path()), inpainting(folder.path()));
    let reference = npz(&data("given/drawn.npz"));
    let runs = runs();
    assert!(runs.len() >= 20);
    for (at, run) in runs.iter().enumerate() {
        let bundle = if run.kind == "shown" { &inpainting } else { &tiny };
        let image = draw(bundle, &request(bundle, run), &mut ()).remove(0);
        let want = &reference[&format!("latents.{at}")];
        assert_eq!(image.latents.shape(), want.shape[..]);
        let error = relative_l2(image.latents.values(), &want.values);
        println!("{at} {} {}: {error:e}", run.kind, run.sampler);
        assert!(error < 1e-4, "{at} {} {}: latents off by {error:e}", run.kind, run.sampler);
    }
}

/// Keeps every step's state.
#[derive(Default)]
struct States(Vec<Halfway>, Vec<[usize; 2]>);

impl Progress for States {
    fn step(&mut self, step: Step) {
        self.1.push([step.done, step.total]);
        if step.done < step.total {
            let (latents, memory) = (step.latents.clone(), step.memory.to_vec());
            self.0.push(Halfway { done: step.done, latents, memory });
        }
    }
}

#[test]
fn a_run_from_a_picture_can_be_taken_up_after_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let (tiny, inpainting) = (tiny(folder.path()), inpainting(folder.path()));
    for run in runs().iter().filter(|run| ["unipc", "tcd", "ddpm", "dpmpp-2m"].contains(&&run.sampler[..])) {
        let bundle = if run.kind == "shown" { &inpainting } else { &tiny };
        let mut request = request(bundle, run);
        let mut states = States::default();
        let whole = draw(bundle, &request, &mut states).remove(0);
        let taken = (run.steps as f64 * run.strength) as usize;
        assert_eq!(states.1, (1..=taken).map(|done| [done, taken]).collect::<Vec<_>>());
        for state in states.0 {
            let done = state.done;
            request.halfway = Some(state);
            let again = draw(bundle, &request, &mut ()).remove(0);
            assert_eq!(again.latents, whole.latents, "{} {}, after step {done}", run.kind, run.sampler);
        }
    }
}

#[test]
fn pictures_of_one_request_are_those_of_single_ones() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = tiny(folder.path());
    let run = &runs()[1];
    let mut request = request(&bundle, run);
    request.count = 2;
    let together = draw(&bundle, &request, &mut ());
    request.count = 1;
    request.seed += 1;
    assert_eq!(draw(&bundle, &request, &mut ())[0].pixels, together[1].pixels);
    assert_ne!(together[0].pixels, together[1].pixels);
}

#[test]
fn what_a_mask_leaves_stays_as_it_was_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = tiny(folder.path());
    let request = request(&bundle, &runs()[1]);
    let cells = request.init.as_ref().unwrap().mask().unwrap().cells(bundle.pipeline().vae_scale_factor);
    assert!(cells.contains(&0.0) && cells.contains(&1.0));
    let drawn = |prompt: &str| {
        let request = Request { prompt: Prompt::new(prompt).unwrap(), ..request.clone() };
        draw(&bundle, &request, &mut ()).remove(0).latents
    };
    let (one, other) = (drawn("a red box"), drawn("zebra"));
    for (at, (a, b)) in one.values().iter().zip(other.values()).enumerate() {
        assert_eq!(a == b, cells[at % cells.len()] == 0.0, "value {at}");
    }
}

#[test]
fn requests_that_a_model_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let (tiny, inpainting) = (tiny(folder.path()), inpainting(folder.path()));
    let run = &runs()[0];
    assert!(matches!(request(&inpainting, run).check(&inpainting), Err(RequestError::NoMask)));
    let plain = Request { init: None, ..request(&tiny, run) };
    assert!(plain.check(&tiny).is_ok());
    assert!(matches!(plain.check(&inpainting), Err(RequestError::NoMask)));
    let mut weak = request(&tiny, &Run { strength: 0.1, ..runs().remove(0) });
    assert!(matches!(weak.check(&tiny), Err(RequestError::NoStep { steps: 5, .. })));
    weak.size.width_px = 64;
    assert!(matches!(weak.check(&tiny), Err(RequestError::InitSize)));
}
