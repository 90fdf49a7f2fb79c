//! What is asked for, checked against what the model can do before anything is loaded.

use super::abilities::{draws_parts, grid_px, is_told_guidance, unet_channels};
use super::{ClassError, InitImage, Sampler, Size, UnclipError, UnclipRequest};
use crate::bundle::{Bundle, Component, Pipeline};
use crate::denoise::guidance::{GuidanceError, GuidanceInterval, GuidanceScale};
use crate::denoise::kind::RunOptions;
use crate::denoise::schedule::MAX_INFERENCE_STEPS;
use crate::denoise::{self, SamplerError};
use crate::tensor::Latents;
use crate::text::weighted::WeightError;
use crate::text::{Prompt, PromptTooLong, Syntax};

/// The largest side of a picture. Beyond it the latents of a request would not fit any board.
pub const SIDE_MAX_PX: usize = 4096;
/// The most pictures in one request.
pub const COUNT_MAX: usize = 1000;
/// The most times that a picture is enlarged.
const SCALE_MAX: usize = 32;
/// The largest side of a picture that is enlarged.
const ENLARGED_MAX_PX: usize = 16384;

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
    /// A picture that would be enlarged too much.
    #[error(
        "a scale of {got} is not possible: 1 to {SCALE_MAX}, with no side longer than {ENLARGED_MAX_PX} px"
    )]
    Scale {
        /// What was asked for.
        got: usize,
    },
    /// A network that does not draw pictures by itself.
    #[error("the UNet of this model takes {} channels and gives {}, expected 3 of both for a picture", got[0], got[1])]
    PixelChannels {
        /// Channels of input and output.
        got: [u64; 2],
    },
    /// The prompt names no class.
    #[error(transparent)]
    Class(#[from] ClassError),
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
    /// A strength that is no share.
    #[error("strength {got} is no share of the steps: expected more than 0, up to 1")]
    Strength {
        /// What was asked for.
        got: f64,
    },
    /// A strength that leaves nothing to do.
    #[error("a strength of {strength} takes none of {steps} steps: take a higher one, or more steps")]
    NoStep {
        /// What was asked for.
        strength: f64,
        /// Steps of the request.
        steps: usize,
    },
    /// A mask that does not lie on its picture.
    #[error(
        "the mask has {} x {} px and the picture {} x {}: they have to be of one size",
        got[0], got[1], expected[0], expected[1]
    )]
    MaskSize {
        /// Width and height of the picture.
        expected: [usize; 2],
        /// Width and height of the mask.
        got: [usize; 2],
    },
    /// A picture to begin from of another size than the request.
    #[error("the picture to begin from is not of the size to draw")]
    InitSize,
    /// A picture to begin from, and nothing that can read it.
    #[error(
        "this model has no vae_encoder, which begins from a picture: import it again from a folder that has one"
    )]
    NoEncoder,
    /// A model for parts of pictures, and no part.
    #[error("this model draws parts of pictures: give it a picture and a mask")]
    NoMask,
    /// A network that is shown something that is not known here.
    #[error(
        "the UNet of this model takes {got} channels, expected {expected}, or {} for one that draws parts of pictures",
        2 * expected + 1
    )]
    UnetChannels {
        /// Channels of the latents.
        expected: usize,
        /// What its configuration says.
        got: usize,
    },
    /// A state to go on from that is none of this request's.
    #[error("the state after step {done} is not one of a single picture of this size in {steps} steps")]
    Halfway {
        /// Steps that are said to be done.
        done: usize,
        /// Steps of the request.
        steps: usize,
    },
    /// Deep features that would never be computed, or for more steps than there can be.
    #[error("a feature cache of {got} steps, expected 1 (none) to {MAX_INFERENCE_STEPS}")]
    FeatureCache {
        /// What was asked for.
        got: usize,
    },
    /// Unfinished pictures are to be seen of a model that judges pictures first.
    #[error("this model has a safety checker, which judges finished pictures: unfinished ones are not shown")]
    Unjudged,
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
    /// A weight in a prompt is none.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// Prompts of several chunks, and a network that takes one.
    #[error(
        "the prompts take {got} tokens, and the UNet of this model was exported for {expected}: shorten them, or export it with a \
         free sequence length"
    )]
    Tokens {
        /// What the network takes.
        expected: usize,
        /// What the prompts take.
        got: usize,
    },
    /// Guidance in some steps, of a model that does not run twice in any.
    #[error(
        "this model is told the guidance scale and runs once a step: leave the guidance interval out, it would save nothing"
    )]
    ToldGuidance,
    /// What unCLIP cannot draw from.
    #[error(transparent)]
    Unclip(#[from] UnclipError),
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
            syntax: Syntax::default(),
            clip_skip: 0,
            size: Size::of_model(pipeline),
            steps: pipeline.default_steps,
            guidance_scale: GuidanceScale::new(pipeline.default_guidance as f32)?,
            guidance_interval: GuidanceInterval::WHOLE,
            feature_cache: 1,
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
