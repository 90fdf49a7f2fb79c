//! What is asked for, checked against what the model can do before anything is loaded.

use super::abilities::{draws_parts, grid_px, is_told_guidance, unet_channels};
use super::{InitImage, RequestError, Sampler, Size, UnclipRequest};
use crate::bundle::{Bundle, Component, Pipeline};
use crate::denoise::guidance::{GuidanceInterval, GuidanceScale};
use crate::denoise::kind::RunOptions;
use crate::denoise::schedule::MAX_INFERENCE_STEPS;
use crate::denoise::{self, SamplerError};
use crate::engine::TokenMerging;
use crate::tensor::Latents;
use crate::text::{Prompt, Syntax};

/// The largest side of a picture. Beyond it the latents of a request would not fit any board.
pub const SIDE_MAX_PX: usize = 4096;
/// The most pictures in one request.
pub const COUNT_MAX: usize = 1000;
/// The most times that a picture is enlarged.
pub(super) const SCALE_MAX: usize = 32;
/// The largest side of a picture that is enlarged.
pub(super) const ENLARGED_MAX_PX: usize = 16384;

/// The state of a picture after some of its steps, to be gone on from.
#[derive(Debug, Clone)]
pub struct Halfway {
    /// How many steps are done, of those that are taken; at least one, not all of them, and a multiple of the feature cache.
    pub done: usize,
    /// The latents after these.
    pub latents: Latents,
    /// What the sampler remembers of them.
    pub memory: Vec<f32>,
}

/// A request for one picture or several that differ in their seed.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to draw; empty means no condition.
    pub prompt: Prompt,
    /// What to stay away from.
    pub negative: Prompt,
    /// How the two are read.
    pub syntax: Syntax,
    /// How many of the text encoder's last layers the prompt does without; the negative prompt does without none.
    pub clip_skip: usize,
    /// The size, the model's own if not given.
    pub size: Size,
    /// Steps of the sampler, 1 to 1000.
    pub steps: usize,
    /// How strictly to follow the prompt.
    pub guidance_scale: GuidanceScale,
    /// In which of the steps.
    pub guidance_interval: GuidanceInterval,
    /// In every how many steps the UNet's deep features are computed; 1 for every one.
    pub feature_cache: usize,
    /// Which share of the tokens is merged into others for self-attention on the UNet's largest maps.
    pub token_merging: TokenMerging,
    /// The share of fresh noise per step, 0 to 1; the sampler's own if not given.
    pub eta: Option<f32>,
    /// Which sampler.
    pub sampler: Sampler,
    /// The first picture's seed; the others follow it.
    pub seed: u64,
    /// How many pictures, 1 to `COUNT_MAX`.
    pub count: usize,
    /// Initial noise instead of the seed's, of unit variance.
    pub latents: Option<Latents>,
    /// A picture to begin from.
    pub init: Option<InitImage>,
    /// How many pixels of the file each pixel is wide and high, 1 to 32.
    pub scale: usize,
    /// Go on from here instead of from noise; for one picture alone.
    pub halfway: Option<Halfway>,
    /// What a model of the kind `unclip` is asked beside; `None` for others.
    pub unclip: Option<UnclipRequest>,
}

impl Request {
    /// A request for what the model draws best, to be changed.
    ///
    /// # Errors
    /// [`RequestError::Guidance`] if the model's own guidance scale is out of range.
    pub fn new(bundle: &Bundle, prompt: Prompt, seed: u64) -> Result<Self, RequestError> {
        let pipeline = bundle.pipeline();
        Ok(Self {
            prompt,
            negative: Prompt::default(),
            syntax: Syntax::default(),
            clip_skip: 0,
            size: Size::of_model(pipeline),
            steps: pipeline.default_steps,
            guidance_scale: GuidanceScale::new(pipeline.default_guidance as f32)?,
            guidance_interval: GuidanceInterval::WHOLE,
            feature_cache: 1,
            token_merging: TokenMerging::NONE,
            eta: None,
            sampler: Sampler::of_model(pipeline),
            seed,
            count: 1,
            latents: None,
            init: None,
            scale: 1,
            halfway: None,
            unclip: UnclipRequest::of_model(pipeline)?,
        })
    }

    /// Checks what can be checked without loading anything.
    ///
    /// # Errors
    /// [`RequestError`], the first that is found.
    pub fn check(&self, bundle: &Bundle) -> Result<(), RequestError> {
        self.check_size(bundle)?;
        self.check_init(bundle)?;
        self.prompt.words(self.syntax)?;
        self.negative.words(self.syntax)?;
        let side_px = self.size.width_px.max(self.size.height_px);
        if !(1..=SCALE_MAX).contains(&self.scale) || self.scale > 1 && side_px * self.scale > ENLARGED_MAX_PX
        {
            return Err(RequestError::Scale { got: self.scale });
        }
        if !(1..=COUNT_MAX).contains(&self.count) {
            return Err(RequestError::Count { got: self.count });
        }
        if self.seed.checked_add(self.count as u64 - 1).is_none() {
            return Err(RequestError::Seed { seed: self.seed, count: self.count });
        }
        if !self.guidance_interval.is_whole() && is_told_guidance(bundle) {
            return Err(RequestError::ToldGuidance);
        }
        if !(1..=MAX_INFERENCE_STEPS).contains(&self.feature_cache) {
            return Err(RequestError::FeatureCache { got: self.feature_cache });
        }
        let expected = self.latent_shape(bundle);
        let steps = self.steps_taken();
        if let Some(Halfway { done, latents, .. }) = &self.halfway
            && (self.count != 1
                || !(1..steps).contains(done)
                || !done.is_multiple_of(self.feature_cache)
                || latents.shape() != expected)
        {
            return Err(RequestError::Halfway { done: *done, steps });
        }
        match &self.latents {
            Some(latents) if latents.shape() != expected => {
                Err(RequestError::Latents { expected, got: latents.shape() })
            }
            _ => Ok(()),
        }
    }

    /// Checks that the model can draw pictures of this size.
    ///
    /// # Errors
    /// [`RequestError::Side`].
    pub fn check_size(&self, bundle: &Bundle) -> Result<(), RequestError> {
        let grid = grid_px(bundle);
        for (side, got) in [("width", self.size.width_px), ("height", self.size.height_px)] {
            if got == 0 || got > SIDE_MAX_PX || !got.is_multiple_of(grid) {
                let nearest =
                    (got.saturating_add(grid / 2) / grid * grid).clamp(grid, SIDE_MAX_PX / grid * grid);
                return Err(RequestError::Side { side, grid, nearest, got });
            }
        }
        Ok(())
    }

    /// Checks that the model can begin from the picture that was given, and needs no other.
    fn check_init(&self, bundle: &Bundle) -> Result<(), RequestError> {
        let (expected, got) = (bundle.pipeline().latent_channels, unet_channels(bundle));
        let has_mask = self.init.as_ref().is_some_and(|init| init.mask().is_some());
        if got != expected && !draws_parts(bundle) {
            return Err(RequestError::UnetChannels { expected, got });
        }
        if draws_parts(bundle) && !has_mask {
            return Err(RequestError::NoMask);
        }
        let Some(init) = &self.init else { return Ok(()) };
        let (strength, steps) = (init.strength(), self.steps);
        if bundle.component(Component::VaeEncoder).is_none() {
            return Err(RequestError::NoEncoder);
        }
        if [init.picture().width_px(), init.picture().height_px()]
            != [self.size.width_px, self.size.height_px]
        {
            return Err(RequestError::InitSize);
        }
        // No steps at all are the sampler's to refuse.
        if steps > 0 && self.steps_taken() == 0 {
            return Err(RequestError::NoStep { strength, steps });
        }
        Ok(())
    }

    /// The seeds of its pictures, in order.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        let step = if self.unclip.as_ref().is_some_and(UnclipRequest::shares_noise) { 0 } else { 1 };
        let first = self.seed;
        (0..self.count as u64).map(move |at| first + at * step)
    }

    /// Steps that are taken: all of them, or a share of them from a given picture on.
    pub fn steps_taken(&self) -> usize {
        self.steps - self.init.as_ref().map_or(0, |init| init.first_step(self.steps))
    }

    /// Its sampler, at the beginning.
    ///
    /// # Errors
    /// [`SamplerError`]: the request does not fit it, or the model's configuration does not.
    pub(super) fn build_sampler(&self, bundle: &Bundle) -> Result<Box<dyn denoise::Sampler>, SamplerError> {
        let len = self.latent_shape(bundle).iter().product();
        let run = RunOptions { steps: self.steps, eta: self.eta, len };
        self.sampler.build(&bundle.pipeline().scheduler, run)
    }

    /// `[1, channels, height, width]` of the latents.
    pub fn latent_shape(&self, bundle: &Bundle) -> [usize; 4] {
        let pipeline = bundle.pipeline();
        let cells = |px: usize| px / pipeline.vae_scale_factor;
        [1, pipeline.latent_channels, cells(self.size.height_px), cells(self.size.width_px)]
    }
}

impl Sampler {
    /// The sampler that a model draws with when nobody asks for another. A name from a later version stands for DDIM, which
    /// every model can be drawn with.
    pub fn of_model(pipeline: &Pipeline) -> Self {
        Self::from_name(&pipeline.sampler).unwrap_or(Self::Ddim)
    }
}

/// A seed for those who do not ask for one, short enough to be typed again.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(()) & u64::from(u32::MAX)
}
