//! Between latents and pixels.

mod blend;
mod decoder;

pub use decoder::{DecodeError, VaeDecoder};
