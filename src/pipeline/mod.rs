//! What to do in which order: each pipeline loads a stage, runs it and lets go of it before the next.

mod embed;
mod example;
mod footprint;
mod manifest;
mod preview;
mod progress;
mod request;
mod text_to_image;

use std::path::PathBuf;

use crate::clip::ImageError;
use crate::denoise::SamplerError;
use crate::denoise::config::ConfigError;
use crate::engine::EngineError;
use crate::tensor::ShapeError;
use crate::text::encoder::EncodeError;
use crate::vae::DecodeError;

pub use crate::denoise::kind::SamplerKind as Sampler;
pub use embed::{Embedded, embed};
pub use example::{EXAMPLE_PROMPT, example};
pub use footprint::footprints;
pub use manifest::{MANIFEST, Manifest, PARAMETERS, UsedDecoder, UsedLora};
pub use preview::LatentRgb;
pub use progress::{Progress, Step};
pub use request::{Halfway, Request, RequestError, Size, random_seed};
pub use text_to_image::{Image, Seconds, TextToImage, stages};

impl PipelineError {
    /// The network's error, whichever stage met it.
    pub fn engine(&self) -> Option<&EngineError> {
        match self {
            Self::Engine(error)
            | Self::Encode(EncodeError::Engine(error))
            | Self::Decode(DecodeError::Engine(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the model's scheduler configuration is at fault, whatever is asked for.
    pub fn is_bad_scheduler(&self) -> bool {
        match self {
            Self::Sampler(SamplerError::Config(error)) => !matches!(error, ConfigError::Unsupported { .. }),
            _ => false,
        }
    }
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The request does not fit the model.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The sampler cannot be made for this request, or not for this model.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The prompt cannot be encoded.
    #[error("cannot encode the prompt")]
    Encode(#[from] EncodeError),
    /// A picture cannot be embedded.
    #[error("{}", path.display())]
    Image {
        /// The picture's file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// A picture's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A network cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The latents cannot be decoded.
    #[error("cannot decode the latents")]
    Decode(#[from] DecodeError),
    /// The initial noise does not have the shape of the latents.
    #[error(transparent)]
    Latents(#[from] ShapeError),
}
