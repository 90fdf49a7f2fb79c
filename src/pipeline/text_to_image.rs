//! Words to pictures, as Stable Diffusion makes them.
//!
//! ```text
//! text encoder   prompt, negative prompt -> two embeddings        then let go; some models have two encoders
//! UNet           per picture: noise -> latents                    then let go
//! decoder        per picture: latents -> pixels
//! ```
//! The pictures of a request go through a stage together, so that each network is loaded once and two are
//! never in memory at a time.

use std::sync::Arc;
use std::time::Instant;

use super::{PipelineError, Progress, Request, RequestError, Step, footprints};
use crate::bundle::{Bundle, Component};
use crate::denoise::Sampler;
use crate::denoise::kind::RunOptions;
use crate::denoise::noise::TorchGenerator;
use crate::denoise::run::{Condition, Observer, run, skip_noise};
use crate::denoise::unet::Unet;
use crate::engine::Resources;
use crate::kernels::Arithmetic;
use crate::tensor::{Latents, Rgb8, TextEmbedding};
use crate::text::Prompt;
use crate::text::encoder::{EncodeError, TextEncoder};
use crate::vae::VaeDecoder;

/// The components of a model that run one after the other.
pub fn stages(bundle: &Bundle) -> Vec<Component> {
    let second = bundle.component(Component::TextEncoder2).map(|_| Component::TextEncoder2);
    let first = std::iter::once(Component::TextEncoder).chain(second);
    first.chain([Component::Unet, Component::VaeDecoder]).collect()
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Image {
    /// The seed that makes it again.
    pub seed: u64,
    /// The latents before decoding, and before the division by the scaling factor.
    pub latents: Latents,
    /// The pixels.
    pub pixels: Rgb8,
    /// What products with `int8` weights were computed in.
    pub arithmetic: Arithmetic,
}

/// Where the time went, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seconds {
    /// Loading networks.
    pub load: f64,
    /// Encoding the prompts.
    pub text: f64,
    /// Denoising.
    pub denoise: f64,
    /// Decoding.
    pub decode: f64,
}

/// A Stable Diffusion model that draws from words.
pub struct TextToImage {
    bundle: Arc<Bundle>,
    /// The model whose decoder is used.
    decoder: Arc<Bundle>,
    resources: Resources,
    seconds: Seconds,
}

impl TextToImage {
    /// Over the model in `bundle`. Nothing is loaded yet.
    pub fn new(bundle: Arc<Bundle>, resources: Resources) -> Self {
        Self { decoder: bundle.clone(), bundle, resources, seconds: Seconds::default() }
    }

    /// Decodes with the decoder of another model.
    ///
    /// # Errors
    /// [`RequestError::Decoder`] if it has none, or one for other latents.
    pub fn with_decoder(self, decoder: Arc<Bundle>) -> Result<Self, RequestError> {
        let refuse = |what, expected: usize, got: usize| RequestError::Decoder { what, expected, got };
        let (ours, theirs) = (self.bundle.pipeline(), decoder.pipeline());
        if decoder.component(Component::VaeDecoder).is_none() {
            return Err(RequestError::NoDecoder { name: theirs.name.clone() });
        }
        if ours.latent_channels != theirs.latent_channels {
            return Err(refuse("channels of the latents", ours.latent_channels, theirs.latent_channels));
        }
        if ours.vae_scale_factor != theirs.vae_scale_factor {
            return Err(refuse("pixels along a latent cell", ours.vae_scale_factor, theirs.vae_scale_factor));
        }
        Ok(Self { decoder, ..self })
    }

    /// Where the time of all runs so far went.
    pub fn seconds(&self) -> Seconds {
        self.seconds
    }

    /// Checks all of a request that can be checked without loading anything.
    ///
    /// # Errors
    /// [`PipelineError`]: the request's fault, or the model's configuration.
    pub fn check(&self, request: &Request) -> Result<(), PipelineError> {
        request.check(&self.bundle)?;
        let sampler = self.sampler(request)?;
        match &request.halfway {
            Some(halfway) if halfway.memory.len() != sampler.memory().len() => {
                Err(RequestError::Halfway { done: halfway.done, steps: request.steps }.into())
            }
            _ => Ok(()),
        }
    }

    fn sampler(&self, request: &Request) -> Result<Box<dyn Sampler>, PipelineError> {
        let len = request.latent_shape(&self.bundle).iter().product();
        let run = RunOptions { steps: request.steps, eta: request.eta, len };
        Ok(request.sampler.build(&self.bundle.pipeline().scheduler, run)?)
    }

    /// Makes the pictures of a request, in the order of their seeds.
    ///
    /// # Errors
    /// [`PipelineError`]; no picture is made then.
    pub fn run(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Image>, PipelineError> {
        self.check(request)?;
        if self.resources.memory_bytes.is_some() {
            let (decoder, encoders) = (&self.decoder, stages(&self.bundle));
            let before = &encoders[..encoders.len() - 1];
            footprints(&self.bundle, before, request.size, &self.resources)?;
            footprints(decoder, &[Component::VaeDecoder], request.size, &self.resources)?;
        }
        let [cond, uncond] = self.encode(request, progress)?;
        let condition = Condition {
            cond: &cond,
            uncond: &uncond,
            guidance_scale: request.guidance_scale,
            guidance_interval: request.guidance_interval,
        };
        let latents = self.denoise(request, &condition, progress)?;
        let pixels = self.decode(&latents)?;
        let images = (request.seed..).zip(latents.into_iter().zip(pixels));
        let arithmetic = self.resources.arithmetic;
        Ok(images.map(|(seed, (latents, pixels))| Image { seed, latents, pixels, arithmetic }).collect())
    }

    fn encode(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
    ) -> Result<[TextEmbedding; 2], PipelineError> {
        let pipeline = self.bundle.pipeline();
        let negative_is_zeros =
            pipeline.force_zeros_for_empty_prompt == Some(true) && request.negative.as_str().is_empty();
        let mut prompts = vec![&request.prompt];
        prompts.extend((!negative_is_zeros).then_some(&request.negative));
        let mut embeddings = self.encode_with(Component::TextEncoder, &prompts, progress)?;
        if self.bundle.component(Component::TextEncoder2).is_some() {
            let second = self.encode_with(Component::TextEncoder2, &prompts, &mut ())?;
            let both = embeddings.into_iter().zip(second).map(|(first, second)| first.beside(second));
            embeddings = both.collect::<Result<_, _>>().map_err(EncodeError::from)?;
        }
        let cond = embeddings.swap_remove(0);
        let uncond = embeddings.pop().unwrap_or_else(|| cond.zeros());
        Ok([cond, uncond])
    }

    /// What one encoder makes of some prompts.
    fn encode_with(
        &mut self,
        kind: Component,
        prompts: &[&Prompt],
        progress: &mut dyn Progress,
    ) -> Result<Vec<TextEmbedding>, PipelineError> {
        let load = || TextEncoder::load_one(&self.bundle, kind, &self.resources);
        let mut encoder = timed(&mut self.seconds.load, load)?;
        let mut encode = |prompt: &&Prompt| {
            let encoded = timed(&mut self.seconds.text, || encoder.encode(prompt))?;
            if let Some(dropped) = &encoded.dropped {
                progress.truncated(dropped);
            }
            Ok::<_, PipelineError>(encoded.embedding)
        };
        prompts.iter().map(&mut encode).collect()
    }

    fn denoise(
        &mut self,
        request: &Request,
        condition: &Condition,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Latents>, PipelineError> {
        let mut unet = timed(&mut self.seconds.load, || Unet::load(&self.bundle, &self.resources))?;
        let mut all = Vec::with_capacity(request.count);
        for (at, seed) in (0..request.count).zip(request.seed..) {
            let mut sampler = self.sampler(request)?;
            let steps = sampler.steps();
            let mut generator = TorchGenerator::new(seed);
            let mut latents =
                initial_latents(request, &self.bundle, &mut generator, sampler.init_noise_sigma())?;
            let done = request.halfway.as_ref().map_or(0, |halfway| halfway.done);
            if let Some(halfway) = &request.halfway {
                skip_noise(&*sampler, 0..done, &latents, &mut generator);
                latents = halfway.latents.clone();
                sampler.remember(&halfway.memory);
            }
            let mut told = Told { progress, before: at * steps, total: request.count * steps };
            timed(&mut self.seconds.denoise, || {
                let (latents, generator) = (&mut latents, &mut generator);
                run(&mut unet, &mut *sampler, done..steps, condition, latents, generator, &mut told)
            })?;
            all.push(latents);
        }
        Ok(all)
    }

    fn decode(&mut self, latents: &[Latents]) -> Result<Vec<Rgb8>, PipelineError> {
        let mut decoder = timed(&mut self.seconds.load, || VaeDecoder::load(&self.decoder, &self.resources))?;
        let mut decode = |latents| timed(&mut self.seconds.decode, || decoder.decode(latents));
        latents.iter().map(|latents| Ok(decode(latents)?)).collect()
    }
}

/// Tells the caller of one picture's steps as of the request's.
struct Told<'a> {
    progress: &'a mut dyn Progress,
    before: usize,
    total: usize,
}

impl Observer for Told<'_> {
    fn wants_original(&self) -> bool {
        self.progress.wants_original()
    }

    fn after_step(&mut self, done: usize, latents: &Latents, memory: &[f32], original: Option<&Latents>) {
        self.progress.step(Step { done: self.before + done, total: self.total, latents, memory, original });
    }
}

fn initial_latents(
    request: &Request,
    bundle: &Bundle,
    generator: &mut TorchGenerator,
    sigma: f32,
) -> Result<Latents, PipelineError> {
    let [_, channels, height_cells, width_cells] = request.latent_shape(bundle);
    let mut latents = match &request.latents {
        Some(latents) => latents.clone(),
        None => {
            let mut noise = vec![0.0; channels * height_cells * width_cells];
            generator.fill_normal(&mut noise);
            Latents::new(noise, channels, height_cells, width_cells)?
        }
    };
    latents.values_mut().iter_mut().for_each(|x| *x *= sigma);
    Ok(latents)
}

fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *seconds += start.elapsed().as_secs_f64();
    result
}
