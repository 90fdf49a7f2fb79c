//! Latents -> picture.

use std::sync::Arc;

use super::blend;
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources, Tile};
use crate::tensor::{Latents, Rgb8, ShapeError};

/// Why latents were not decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The graph cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The graph's output is no picture of three channels.
    #[error("the decoder's output is not a picture")]
    Output(#[from] ShapeError),
}

/// The autoencoder's decoder.
pub struct VaeDecoder {
    component: Component,
    scaling_factor: f32,
    shift_factor: f32,
    tile: Tile,
    cell_px: usize,
}

impl VaeDecoder {
    /// Loads the decoder of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none or its graph cannot be read.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EngineError> {
        let component = Component::load(bundle, bundle::Component::VaeDecoder, resources)?;
        let pipeline = bundle.pipeline();
        let (scaling_factor, shift_factor) = (pipeline.scaling_factor as f32, pipeline.shift_factor as f32);
        let (tile, cell_px) = (resources.tile, pipeline.vae_scale_factor);
        Ok(Self { component, scaling_factor, shift_factor, tile, cell_px })
    }

    /// Whether the picture was not decoded as a whole, which changes its last bits.
    pub fn is_divided(&self) -> bool {
        matches!(self.tile, Tile::Blend(_)) || self.component.is_striped()
    }

    /// Decodes latents as the denoising loop leaves them, before the division by the scaling factor.
    ///
    /// # Errors
    /// - [`DecodeError::Engine`] if the latents do not fit the graph.
    /// - [`DecodeError::Output`] if what comes out is no picture.
    pub fn decode(&mut self, latents: &Latents) -> Result<Rgb8, DecodeError> {
        let mut scaled = latents.clone();
        let unscale = |z: &mut f32| *z = *z / self.scaling_factor + self.shift_factor;
        scaled.values_mut().iter_mut().for_each(unscale);
        let mut run = |input| self.component.run_for("sample", &[input]);
        let output = match self.tile {
            Tile::Blend(pixels) => blend::decode(&scaled, pixels.div_ceil(self.cell_px), run)?,
            _ => run(NamedTensor::new("latent_sample", &scaled.shape(), scaled.values().to_vec()))?,
        };
        let (height_px, width_px) = match output.shape[..] {
            [1, 3, height_px, width_px] => (height_px, width_px),
            _ => (0, 0),
        };
        Ok(Rgb8::from_planes(&output.values, width_px, height_px)?)
    }
}
