//! What is asked for, checked against what the model can do before anything is loaded.

use super::Sampler;
use crate::bundle::{self, Bundle, Pipeline};
use crate::denoise::guidance::{GuidanceError, GuidanceInterval, GuidanceScale};
use crate::tensor::Latents;
use crate::text::{Prompt, PromptTooLong};

/// The largest side of a picture. Beyond it the latents of a request would not fit any board.
pub const SIDE_MAX_PX: usize = 4096;
/// The most pictures in one request.
pub const COUNT_MAX: usize = 1000;

/// Width and height of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// In pixels.
    pub width_px: usize,
    /// In pixels.
    pub height_px: usize,
}

impl Size {
    /// The size that a model draws when nobody asks for another.
    pub fn of_model(pipeline: &Pipeline) -> Self {
        Self { width_px: pipeline.default_width_px, height_px: pipeline.default_height_px }
    }

    /// The same, with no side longer than `pixels`.
    pub fn at_most(self, pixels: usize) -> Self {
        Self { width_px: self.width_px.min(pixels), height_px: self.height_px.min(pixels) }
    }
}

/// The state of a picture after some of its steps, to be gone on from.
#[derive(Debug, Clone)]
pub struct Halfway {
    /// How many steps are done; at least one, and not all of them.
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
    /// The size, the model's own if not given.
    pub size: Size,
    /// Steps of the sampler, 1 to 1000.
    pub steps: usize,
    /// How strictly to follow the prompt.
    pub guidance_scale: GuidanceScale,
    /// In which of the steps.
    pub guidance_interval: GuidanceInterval,
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
    /// Go on from here instead of from noise; for one picture alone.
    pub halfway: Option<Halfway>,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A side that the model cannot draw.
    #[error(
        "{side} {got} px is not possible with this model: take a multiple of {grid} from {grid} to {SIDE_MAX_PX}, such as {nearest}"
    )]
    Side {
        /// `width` or `height`.
        side: &'static str,
        /// What all sides are multiples of.
        grid: usize,
        /// The nearest possible side.
        nearest: usize,
        /// What was asked for.
        got: usize,
    },
    /// No picture, or too many.
    #[error("{got} pictures were asked for, expected 1 to {COUNT_MAX}")]
    Count {
        /// What was asked for.
        got: usize,
    },
    /// Seeds run past the largest number.
    #[error("seed {seed} leaves no room for {count} pictures: take a smaller one")]
    Seed {
        /// The first seed.
        seed: u64,
        /// How many follow.
        count: usize,
    },
    /// Initial noise of another shape.
    #[error("the initial latents have shape {got:?}, expected {expected:?} for a picture of this size")]
    Latents {
        /// What the size asks for.
        expected: [usize; 4],
        /// What was given.
        got: [usize; 4],
    },
    /// A state to go on from that is none of this request's.
    #[error("the state after step {done} is not one of a single picture of this size in {steps} steps")]
    Halfway {
        /// Steps that are said to be done.
        done: usize,
        /// Steps of the request.
        steps: usize,
    },
    /// A decoder from another model that has none.
    #[error("model {name} has no vae_decoder to decode with")]
    NoDecoder {
        /// The model's name.
        name: String,
    },
    /// A decoder from another model, for other latents.
    #[error("the decoder does not fit this model: {what}: {got}, expected {expected}")]
    Decoder {
        /// What differs.
        what: &'static str,
        /// The model's.
        expected: usize,
        /// The decoder's.
        got: usize,
    },
    /// The prompt has too many bytes.
    #[error(transparent)]
    Prompt(#[from] PromptTooLong),
    /// Guidance in some steps, of a model that does not run twice in any.
    #[error(
        "this model is told the guidance scale and runs once a step: leave the guidance interval out, it would save nothing"
    )]
    ToldGuidance,
    /// The guidance scale or interval is out of range.
    #[error(transparent)]
    Guidance(#[from] GuidanceError),
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
            size: Size::of_model(pipeline),
            steps: pipeline.default_steps,
            guidance_scale: GuidanceScale::new(pipeline.default_guidance as f32)?,
            guidance_interval: GuidanceInterval::WHOLE,
            eta: None,
            sampler: Sampler::of_model(pipeline),
            seed,
            count: 1,
            latents: None,
            halfway: None,
        })
    }

    /// Checks what can be checked without loading anything.
    ///
    /// # Errors
    /// [`RequestError`], the first that is found.
    pub fn check(&self, bundle: &Bundle) -> Result<(), RequestError> {
        let grid = grid_px(bundle);
        for (side, got) in [("width", self.size.width_px), ("height", self.size.height_px)] {
            if got == 0 || got > SIDE_MAX_PX || !got.is_multiple_of(grid) {
                let nearest =
                    (got.saturating_add(grid / 2) / grid * grid).clamp(grid, SIDE_MAX_PX / grid * grid);
                return Err(RequestError::Side { side, grid, nearest, got });
            }
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
        let expected = self.latent_shape(bundle);
        if let Some(Halfway { done, latents, .. }) = &self.halfway
            && (self.count != 1 || !(1..self.steps).contains(done) || latents.shape() != expected)
        {
            return Err(RequestError::Halfway { done: *done, steps: self.steps });
        }
        match &self.latents {
            Some(latents) if latents.shape() != expected => {
                Err(RequestError::Latents { expected, got: latents.shape() })
            }
            _ => Ok(()),
        }
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

/// Whether the UNet is told the guidance scale.
fn is_told_guidance(bundle: &Bundle) -> bool {
    let unet = bundle.component(bundle::Component::Unet);
    unet.is_some_and(|unet| unet.config["time_cond_proj_dim"].is_u64())
}

/// What every side is a multiple of: a latent cell, as often as the UNet halves the latents.
fn grid_px(bundle: &Bundle) -> usize {
    let config = bundle.component(bundle::Component::Unet).map(|unet| &unet.config);
    let levels = config.and_then(|c| c["block_out_channels"].as_array()).map_or(4, Vec::len);
    bundle.pipeline().vae_scale_factor << levels.clamp(1, 8).saturating_sub(1)
}
