//! Why a request is refused.

use super::request::{COUNT_MAX, ENLARGED_MAX_PX, SCALE_MAX, SIDE_MAX_PX};
use super::{ClassError, UnclipError};
use crate::denoise::guidance::GuidanceError;
use crate::denoise::schedule::MAX_INFERENCE_STEPS;
use crate::text::PromptTooLong;
use crate::text::weighted::WeightError;

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
