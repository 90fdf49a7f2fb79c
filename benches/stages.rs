//! What the stages of the shipped model take, with one thread for each core.
//!
//! Before a stage is timed, its result has to be that of a single thread to the bit, and near to that of f32 products.
//! Measured there: 1e-3 or less with 11-bit activations.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use tintype::bundle::Bundle;
use tintype::denoise::guidance::GuidanceScale;
use tintype::denoise::noise::TorchGenerator;
use tintype::denoise::unet::{Input, Unet};
use tintype::engine::{Resources, Threads};
use tintype::kernels::Arithmetic;
use tintype::pipeline::{Request, TextToImage};
use tintype::tensor::{Latents, TextEmbedding};
use tintype::text::encoder::TextEncoder;
use tintype::text::{Prompt, Syntax};
use tintype::vae::VaeDecoder;

const PROMPT: &str = "a red apple";
/// The relative L2 to f32 products that is let pass: 8-bit activations take more than 11-bit ones.
const ERROR_MAX: f64 = 5e-2;
const INPUT: Input = Input { divisor: 1.0, timestep: 700.0, beside: None };

fn stages(c: &mut Criterion) {
    let bundle = bundle();
    let latents = latents(&bundle);
    let texts = [text(&bundle, PROMPT), text(&bundle, "")];
    let scale = GuidanceScale::new(3.0).unwrap();
    let mut group = c.benchmark_group("stage");
    group.sample_size(10);

    let encode = |resources: &Resources| {
        let mut encoder = TextEncoder::load(&bundle, resources).unwrap();
        move || encoded(&mut encoder, PROMPT).values().to_vec()
    };
    check(encode);
    group.bench_function("text_encoder", |b| b.iter(encode(&resources())));

    let predict = |resources: &Resources| {
        let mut unet = Unet::load(&bundle, resources).unwrap();
        let (latents, text) = (&latents, &texts[0]);
        move || unet.predict(latents, INPUT, text, scale).unwrap()
    };
    check(predict);
    group.bench_function("unet", |b| b.iter(predict(&resources())));

    let predict_both = |resources: &Resources| {
        let mut unet = Unet::load(&bundle, resources).unwrap();
        let (latents, [cond, uncond]) = (&latents, &texts);
        move || unet.predict_both(latents, INPUT, [cond, uncond], scale).unwrap().concat()
    };
    check(predict_both);
    group.bench_function("unet, both prompts", |b| b.iter(predict_both(&resources())));

    let decode = |resources: &Resources| {
        let mut decoder = VaeDecoder::load(&bundle, resources).unwrap();
        let latents = &latents;
        move || as_floats(decoder.decode(latents).unwrap().pixels())
    };
    check(decode);
    group.bench_function("vae_decoder", |b| b.iter(decode(&resources())));

    let draw = |resources: &Resources| {
        let request = Request { steps: 2, ..Request::new(&bundle, prompt(PROMPT), 1).unwrap() };
        let mut pipeline = TextToImage::new(bundle.clone(), resources.clone());
        move || as_floats(pipeline.run(&request, &mut ()).unwrap()[0].pixels.pixels())
    };
    check(draw);
    group.bench_function("picture, 2 steps", |b| b.iter(draw(&resources())));
    group.finish();
}

/// Checks a stage that is made ready by `load`.
fn check<S: FnMut() -> Vec<f32>>(load: impl Fn(&Resources) -> S) {
    let single = Resources { threads: Threads::new(1), ..resources() };
    let got = load(&resources())();
    assert_eq!(got, load(&single)(), "the number of threads changes the result");
    let exact = load(&Resources { arithmetic: Arithmetic::F32, ..resources() })();
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let difference = square(&mut got.iter().zip(&exact).map(|(got, exact)| got - exact));
    let error = (difference / square(&mut exact.iter().copied())).sqrt();
    assert!(error <= ERROR_MAX, "a relative error of {error:e}");
}

fn resources() -> Resources {
    Resources::new(Threads::new(Threads::cores()))
}

fn bundle() -> Arc<Bundle> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji.tintype");
    Arc::new(Bundle::open(path.as_ref()).unwrap())
}

fn prompt(text: &str) -> Prompt {
    Prompt::new(text).unwrap()
}

fn text(bundle: &Arc<Bundle>, text: &str) -> TextEmbedding {
    encoded(&mut TextEncoder::load(bundle, &resources()).unwrap(), text)
}

fn encoded(encoder: &mut TextEncoder, text: &str) -> TextEmbedding {
    let chunks = encoder.chunks(&prompt(text), Syntax::Plain).unwrap();
    encoder.encode(&chunks, 1).unwrap()
}

/// Noise, of the size that the model draws.
fn latents(bundle: &Bundle) -> Latents {
    let request = Request::new(bundle, prompt(""), 0).unwrap();
    let [_, channels, height, width] = request.latent_shape(bundle);
    let mut noise = vec![0.0; channels * height * width];
    TorchGenerator::new(1).fill_normal(&mut noise);
    Latents::new(noise, channels, height, width).unwrap()
}

fn as_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.iter().copied().map(f32::from).collect()
}

criterion_group!(benches, stages);
criterion_main!(benches);
