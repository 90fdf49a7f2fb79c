//! Words to pictures, as Stable Diffusion makes them, also from a picture that is given.
//!
//! ```text
//! text encoder   prompt, negative prompt -> two embeddings        then let go; some models have two encoders
//! encoder        a given picture -> distribution of latents       then let go
//! UNet           per picture: noise -> latents                    then let go
//! decoder        per picture: latents -> pixels
//! ```
//! The pictures of a request go through a stage together, so that each network is loaded once and two are
//! never in memory at a time.

use std::sync::Arc;
use std::time::Instant;

use super::abilities::draws_parts;
use super::footprint::check_approximations;
use super::gate::Gate;
use super::progress::Watcher;
use super::start::{Encoded, Start};
use super::unclip::{self, Told};
use super::{Blocked, Division, PipelineError, Progress, Request, RequestError, UnclipRequest, footprints};
use crate::bundle::{Bundle, Component};
use crate::clip::Concept;
use crate::denoise::attention::AttentionMap;
use crate::denoise::noise::TorchGenerator;
use crate::denoise::run::{Condition, run, skip_noise};
use crate::denoise::unet::Unet;
use crate::engine::Resources;
use crate::kernels::Arithmetic;
use crate::tensor::{Latents, Rgb8, TextEmbedding};
use crate::text::encoder::{Chunks, EncodeError, TextEncoder};
use crate::vae::{VaeDecoder, VaeEncoder};

/// The components of a model that run one after the other; from a given picture the autoencoder's encoder is another.
pub fn stages(bundle: &Bundle) -> Vec<Component> {
    let unclip = UnclipRequest::of_model(bundle.pipeline()).ok().flatten();
    let told = unclip.map_or(Vec::new(), |unclip| unclip.components(bundle));
    text_encoders(bundle).chain(told).chain([Component::Unet, Component::VaeDecoder]).collect()
}

/// The components that read prompts: one, or in some models two.
fn text_encoders(bundle: &Bundle) -> impl Iterator<Item = Component> {
    let second = bundle.component(Component::TextEncoder2).map(|_| Component::TextEncoder2);
    std::iter::once(Component::TextEncoder).chain(second)
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Image {
    /// Which picture of the request it is, from 0.
    pub at: usize,
    /// The seed that makes it again.
    pub seed: u64,
    /// The latents before decoding, and before the division by the scaling factor.
    pub latents: Latents,
    /// The pixels.
    pub pixels: Rgb8,
    /// What products with `int8` weights were computed in.
    pub arithmetic: Arithmetic,
    /// What decided how large maps were divided, if they were.
    pub division: Option<Division>,
}

/// Where the time went, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seconds {
    /// Loading networks.
    pub load: f64,
    /// Encoding the prompts.
    pub text: f64,
    /// Making embeddings of pictures, of unCLIP.
    pub prior: f64,
    /// Encoding a given picture.
    pub encode: f64,
    /// Denoising.
    pub denoise: f64,
    /// Decoding.
    pub decode: f64,
    /// Judging whether pictures may be seen.
    pub judge: f64,
}

/// A Stable Diffusion model that draws from words.
pub struct TextToImage {
    bundle: Arc<Bundle>,
    /// The model whose decoder is used.
    decoder: Arc<Bundle>,
    resources: Resources,
    concepts: Option<Arc<Vec<Concept>>>,
    seconds: Seconds,
    division: Option<Division>,
    blocked: Vec<Blocked>,
    /// A map for each token of the prompt, if that is recorded.
    attention: Option<Vec<AttentionMap>>,
}

impl TextToImage {
    /// Over the model in `bundle`. Nothing is loaded yet.
    pub fn new(bundle: Arc<Bundle>, resources: Resources) -> Self {
        let (seconds, blocked) = Default::default();
        let decoder = bundle.clone();
        Self { bundle, decoder, resources, concepts: None, seconds, division: None, blocked, attention: None }
    }

    /// The same, and no picture is given out that shows one of these concepts.
    pub fn without(self, concepts: Option<Arc<Vec<Concept>>>) -> Self {
        Self { concepts, ..self }
    }

    /// The same, and it is recorded what of the prompt the UNet attends to.
    pub(super) fn recording_attention(self) -> Self {
        Self { attention: Some(Vec::new()), ..self }
    }

    /// What was recorded in the last run: a map for each token of the prompt.
    pub(super) fn attention_maps(&self) -> &[AttentionMap] {
        self.attention.as_deref().unwrap_or_default()
    }

    /// The pictures of the last run that were not given out.
    pub fn blocked(&self) -> &[Blocked] {
        &self.blocked
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
        if let Some(unclip) = &request.unclip {
            unclip.check(&self.bundle, request.count)?;
        }
        let sampler = request.build_sampler(&self.bundle)?;
        match &request.halfway {
            Some(halfway) if halfway.memory.len() != sampler.memory().len() => {
                Err(RequestError::Halfway { done: halfway.done, steps: request.steps }.into())
            }
            _ => Ok(()),
        }
    }

    /// Makes the pictures of a request, in the order of their seeds; without those that are [`blocked`](Self::blocked), by the
    /// concepts that were given or by the model's own safety checker.
    ///
    /// # Errors
    /// [`PipelineError`]; no picture is made then.
    pub fn run(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Image>, PipelineError> {
        (self.division, self.blocked) = Default::default();
        self.check(request)?;
        let gate = Gate::open(&self.bundle, &self.resources, self.concepts.clone())?;
        if self.resources.memory_bytes.is_some() {
            let (encoder, judges) = (request.init.as_ref(), gate.iter().flat_map(Gate::components));
            let before = text_encoders(&self.bundle).chain(encoder.map(|_| Component::VaeEncoder));
            let told = request.unclip.as_ref().map_or(Vec::new(), |unclip| unclip.components(&self.bundle));
            let own: Vec<Component> = before.chain(told).chain([Component::Unet]).chain(judges).collect();
            footprints(&self.bundle, &own, request.size, &self.resources)?;
            footprints(&self.decoder, &[Component::VaeDecoder], request.size, &self.resources)?;
        }
        check_approximations(&self.bundle, request, &self.resources)?;
        let told = self.tell(request, progress)?;
        let encoded = self.encode_picture(request)?;
        let latents = self.denoise(request, told, encoded.as_ref(), progress)?;
        let pixels = self.decode(&latents)?;
        let images = (0..).zip(request.seeds()).zip(latents.into_iter().zip(pixels));
        let (arithmetic, division) = (self.resources.arithmetic, self.division);
        let image =
            |((at, seed), (latents, pixels))| Image { at, seed, latents, pixels, arithmetic, division };
        let images = images.map(image).collect();
        match gate {
            Some(gate) => self.let_through(&gate, images),
            None => Ok(images),
        }
    }

    /// The images that may be seen.
    fn let_through(&mut self, gate: &Gate, images: Vec<Image>) -> Result<Vec<Image>, PipelineError> {
        let pictures: Vec<&Rgb8> = images.iter().map(|image| &image.pixels).collect();
        let judge = || gate.judge(&self.bundle, &self.resources, &pictures);
        let findings = timed(&mut self.seconds.judge, judge)?;
        let mut seen = Vec::with_capacity(images.len());
        for (image, concepts) in images.into_iter().zip(findings) {
            match concepts.is_empty() {
                true => seen.push(image),
                false => self.blocked.push(Blocked { seed: image.seed, concepts }),
            }
        }
        Ok(seen)
    }

    /// What the UNet is told for each picture.
    fn tell(&mut self, request: &Request, progress: &mut dyn Progress) -> Result<Vec<Told>, PipelineError> {
        let texts = self.encode_texts(request, progress)?;
        match &request.unclip {
            Some(unclip) => timed(&mut self.seconds.prior, || {
                unclip::told(&self.bundle, &self.resources, request, unclip, texts)
            }),
            None => {
                let [cond, uncond] = texts.map(Arc::new);
                let told = |seed| Told {
                    cond: cond.clone(),
                    uncond: uncond.clone(),
                    generator: TorchGenerator::new(seed),
                };
                Ok(request.seeds().map(told).collect())
            }
        }
    }

    /// What the model is told of the prompt, and of the negative prompt. Both are cut into as many chunks, for every encoder.
    fn encode_texts(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
    ) -> Result<[TextEmbedding; 2], PipelineError> {
        let pipeline = self.bundle.pipeline();
        let negative_is_zeros =
            pipeline.force_zeros_for_empty_prompt == Some(true) && request.negative.as_str().is_empty();
        let mut encoders = Vec::new();
        for kind in text_encoders(&self.bundle) {
            let load = || TextEncoder::load_one(&self.bundle, kind, &self.resources);
            let encoder = timed(&mut self.seconds.load, load)?;
            let cut = |prompt| encoder.chunks(prompt, request.syntax);
            let cond = cut(&request.prompt)?;
            let uncond = if negative_is_zeros { None } else { Some(cut(&request.negative)?) };
            encoders.push((encoder, cond, uncond));
        }
        // Without guidance the negative prompt is not read.
        let is_read = request.guidance_scale.is_active();
        let chunks = |(_, cond, uncond): &(TextEncoder, Chunks, Option<Chunks>)| {
            let beside = uncond.as_ref().filter(|_| is_read).map_or(1, Chunks::count);
            cond.count().max(beside)
        };
        let count = encoders.iter().map(chunks).max().unwrap_or(1);
        if let Some((_, cond, uncond)) = encoders.first() {
            let dropped = [Some(cond), uncond.as_ref()].into_iter().flatten().filter_map(Chunks::dropped);
            dropped.for_each(|dropped| progress.truncated(dropped));
        }
        let mut all: Option<[TextEmbedding; 2]> = None;
        for (mut encoder, cond, uncond) in encoders {
            let mut encode = |encoder: &mut TextEncoder, chunks: &Chunks| {
                timed(&mut self.seconds.text, || encoder.encode(chunks, count))
            };
            let uncond = uncond.map(|chunks| encode(&mut encoder, &chunks)).transpose()?;
            if request.clip_skip > 0 {
                encoder = encoder.without_last_layers(request.clip_skip)?;
            }
            let cond = encode(&mut encoder, &cond)?;
            let uncond = uncond.unwrap_or_else(|| cond.zeros());
            let beside = |first: TextEmbedding, second| first.beside(second).map_err(EncodeError::from);
            all = Some(match all {
                Some([first, negative]) => [beside(first, cond)?, beside(negative, uncond)?],
                None => [cond, uncond],
            });
        }
        Ok(all.expect("there is a text encoder"))
    }

    fn encode_picture(&mut self, request: &Request) -> Result<Option<Encoded>, PipelineError> {
        let Some(init) = &request.init else { return Ok(None) };
        let mut encoder = timed(&mut self.seconds.load, || VaeEncoder::load(&self.bundle, &self.resources))?;
        let (cell_px, is_shown) = (self.bundle.pipeline().vae_scale_factor, draws_parts(&self.bundle));
        let encode = || Encoded::new(init, &mut encoder, request.steps, cell_px, is_shown);
        let encoded = timed(&mut self.seconds.encode, encode)?;
        self.note_division(encoder.is_divided());
        Ok(Some(encoded))
    }

    fn denoise(
        &mut self,
        request: &Request,
        told: Vec<Told>,
        encoded: Option<&Encoded>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Latents>, PipelineError> {
        let mut unet = timed(&mut self.seconds.load, || Unet::load(&self.bundle, &self.resources))?;
        unet = unet.merging_tokens(request.token_merging)?.caching_features(request.feature_cache)?;
        if self.attention.is_some() {
            unet = unet.recording_attention()?;
        }
        let mut all = Vec::with_capacity(request.count);
        for (at, Told { cond, uncond, mut generator }) in told.into_iter().enumerate() {
            if let Some(expected) = unet.fixed_tokens().filter(|&tokens| tokens != cond.tokens()) {
                return Err(RequestError::Tokens { expected, got: cond.tokens() }.into());
            }
            let mut sampler = request.build_sampler(&self.bundle)?;
            let start = Start::new(request, &self.bundle, encoded, &mut *sampler, &mut generator)?;
            let Start { mut latents, step: first, kept, beside } = start;
            let mut next = first;
            if let Some(halfway) = &request.halfway {
                next += halfway.done;
                skip_noise(&*sampler, first..next, &latents, &mut generator);
                latents = halfway.latents.clone();
                sampler.remember(&halfway.memory);
            }
            let taken = request.steps_taken();
            let mut watcher = Watcher { progress, first, before: at * taken, total: request.count * taken };
            let (kept, beside) = (kept.as_ref(), beside.as_ref());
            let (guidance_scale, guidance_interval) = (request.guidance_scale, request.guidance_interval);
            let (cond, uncond) = (&*cond, &*uncond);
            let condition = Condition { cond, uncond, guidance_scale, guidance_interval, beside, kept };
            timed(&mut self.seconds.denoise, || {
                let (steps, latents, generator) = (next..sampler.steps(), &mut latents, &mut generator);
                run(&mut unet, &mut *sampler, steps, &condition, latents, generator, &mut watcher)
            })?;
            all.push(latents);
        }
        self.attention = self.attention.take().map(|_| unet.attention_maps());
        Ok(all)
    }

    fn decode(&mut self, latents: &[Latents]) -> Result<Vec<Rgb8>, PipelineError> {
        let mut decoder = timed(&mut self.seconds.load, || VaeDecoder::load(&self.decoder, &self.resources))?;
        let mut decode = |latents| timed(&mut self.seconds.decode, || decoder.decode(latents));
        let pixels = latents.iter().map(|latents| Ok(decode(latents)?)).collect();
        self.note_division(decoder.is_divided());
        pixels
    }

    /// Remembers what divided a picture, if it was.
    fn note_division(&mut self, is_divided: bool) {
        if is_divided {
            self.division = Some(Division::new(&self.resources));
        }
    }
}

/// Runs something, and adds the time that it took.
pub(super) fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *seconds += start.elapsed().as_secs_f64();
    result
}
