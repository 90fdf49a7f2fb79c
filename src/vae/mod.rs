//! Between latents and pixels.

mod decoder;

pub use decoder::{DecodeError, VaeDecoder};
