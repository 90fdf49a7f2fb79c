//! What to do in which order: each pipeline loads a stage, runs it and lets go of it before the next.

mod abilities;
mod additions;
mod block;
mod classes;
mod critic;
mod embed;
mod example;
mod explain;
mod footprint;
mod gate;
mod init_image;
mod manifest;
mod pixels;
mod preview;
mod progress;
mod replay;
mod request;
mod request_error;
mod size;
mod start;
mod state;
mod super_resolution;
mod text_to_image;
mod unclip;

use std::path::PathBuf;
use std::sync::Arc;

use crate::bundle::{Bundle, PipelineKind};
use crate::clip::{ImageError, StatisticsError};
use crate::denoise::SamplerError;
use crate::denoise::config::ConfigError;
use crate::engine::{EngineError, Resources};
use crate::picture::PictureError;
use crate::tensor::ShapeError;
use crate::text::encoder::EncodeError;
use crate::vae;

pub use crate::denoise::attention::AttentionMap;
pub use crate::denoise::kind::SamplerKind as Sampler;
pub use additions::Additions;
pub use block::{BlockList, BlockListError};
pub use classes::ClassError;
pub use critic::Critic;
pub use embed::{Embedded, embed, read_picture};
pub use example::{example, example_prompt};
pub use explain::{Explanation, Noised, Predicted, explain};
pub use footprint::footprints;
pub use gate::{Blocked, GateError};
pub use init_image::{InitImage, Mask};
pub use manifest::{MANIFEST, Manifest, PARAMETERS};
pub use pixels::Pixels;
pub use preview::LatentRgb;
pub use progress::{Progress, Step};
pub use replay::{Division, Givens, ManifestError};
pub use request::{Halfway, Request, random_seed};
pub use request_error::RequestError;
pub use size::Size;
pub use state::{State, decode_state, encode_state};
pub use super_resolution::SuperResolution;
pub use text_to_image::{Image, Seconds, TextToImage, stages};
pub use unclip::{End, Sight, UnclipError, UnclipRequest};

/// Draws with a model of whichever kind, as it is; the pictures, and where the time went.
///
/// # Errors
/// [`PipelineError`]; no picture is made then.
pub fn draw(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    request: &Request,
    progress: &mut dyn Progress,
) -> Result<(Vec<Image>, Seconds), PipelineError> {
    let (bundle, resources) = (bundle.clone(), resources.clone());
    match bundle.pipeline().kind {
        PipelineKind::Pixels => {
            let mut pipeline = Pixels::new(bundle, resources);
            Ok((pipeline.run(request, progress)?, pipeline.seconds()))
        }
        _ => {
            let mut pipeline = TextToImage::new(bundle, resources);
            Ok((pipeline.run(request, progress)?, pipeline.seconds()))
        }
    }
}

impl PipelineError {
    /// The network's error, whichever stage met it.
    pub fn engine(&self) -> Option<&EngineError> {
        match self {
            Self::Engine(error)
            | Self::Encode(EncodeError::Engine(error))
            | Self::EncodePicture(vae::EncodeError::Engine(error))
            | Self::Decode(vae::DecodeError::Engine(error))
            | Self::ImageEncoder(ImageError::Engine(error))
            | Self::Gate(GateError::Encoder(ImageError::Engine(error))) => Some(error),
            _ => None,
        }
    }

    /// Whether the model can draw, and lacks what pictures or sentences would be embedded with.
    pub fn is_lacking(&self) -> bool {
        let missing = matches!(
            self.engine(),
            Some(EngineError::NoComponent { .. } | EngineError::MissingOutput { .. })
        );
        match self {
            Self::ImageEncoder(ImageError::NoConfig { .. })
            | Self::Gate(GateError::Encoder(ImageError::NoConfig { .. })) => true,
            Self::ImageEncoder(_) | Self::Gate(_) | Self::Encode(_) => missing,
            _ => false,
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
    /// A file is no picture that can be read.
    #[error("{}", path.display())]
    Picture {
        /// The picture's file.
        path: PathBuf,
        /// Why.
        source: PictureError,
    },
    /// Pictures cannot be embedded.
    #[error(transparent)]
    ImageEncoder(#[from] ImageError),
    /// The model does not say right how its embeddings vary.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
    /// Finished pictures could not be judged.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The picture to begin from cannot be encoded.
    #[error("cannot encode the picture to begin from")]
    EncodePicture(#[from] vae::EncodeError),
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
    Decode(#[from] vae::DecodeError),
    /// The initial noise does not have the shape of the latents.
    #[error(transparent)]
    Latents(#[from] ShapeError),
}
