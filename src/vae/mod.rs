//! Between latents and pixels.

mod blend;
mod decoder;
mod encoder;

pub use decoder::{DecodeError, VaeDecoder};
pub use encoder::{EncodeError, LatentDistribution, VaeEncoder};
