//! Picture -> latents: a normal distribution for every value, of which one is drawn.
//!
//! Source: Kingma and Welling 2013, section 3, arXiv:1312.6114; diffusers 0.42.1, `DiagonalGaussianDistribution`.

use std::sync::Arc;

use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::kernels::elementary::exp;
use crate::tensor::{Latents, Rgb8, ShapeError};

/// Where the logarithm of a variance is cut.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// Why a picture was not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The graph cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The graph's output is neither latents nor their distribution.
    #[error("the encoder's output does not fit the model's latents")]
    Output(#[from] ShapeError),
}

/// The autoencoder's encoder.
pub struct VaeEncoder {
    component: Component,
    channels: usize,
    scaling_factor: f32,
    shift_factor: f32,
}

impl VaeEncoder {
    /// Loads the encoder of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none or its graph cannot be read.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EngineError> {
        let component = Component::load(bundle, bundle::Component::VaeEncoder, resources)?;
        let pipeline = bundle.pipeline();
        Ok(Self {
            component,
            channels: pipeline.latent_channels,
            scaling_factor: pipeline.scaling_factor as f32,
            shift_factor: pipeline.shift_factor as f32,
        })
    }

    /// Encodes a picture; pixels for which `hidden` says so, by their number, are middle grey.
    ///
    /// # Errors
    /// - [`EncodeError::Engine`] if the picture does not fit the graph.
    /// - [`EncodeError::Output`] if what comes out is no distribution of latents.
    pub fn encode(
        &mut self,
        picture: &Rgb8,
        hidden: impl Fn(usize) -> bool,
    ) -> Result<LatentDistribution, EncodeError> {
        let value = |(at, &byte): (usize, &u8)| {
            if hidden(at) { 0.0 } else { 2.0 * (f32::from(byte) / 255.0) - 1.0 }
        };
        let plane = |c: usize| picture.pixels().iter().skip(c).step_by(3).enumerate().map(value);
        let pixels = (0..3).flat_map(plane).collect();
        let shape = [1, 3, picture.height_px(), picture.width_px()];
        let outputs = self.component.run(&[NamedTensor::new("sample", &shape, pixels)])?;
        let output = outputs.into_iter().next().unwrap_or_else(|| NamedTensor::new("", &[], Vec::new()));
        self.distribution(output)
    }

    /// Whether the picture was not encoded as a whole, which changes its last bits.
    pub fn is_divided(&self) -> bool {
        self.component.is_striped()
    }

    fn distribution(
        &self,
        NamedTensor { shape, mut values, .. }: NamedTensor,
    ) -> Result<LatentDistribution, EncodeError> {
        let unfit = || ShapeError::new("latents", &shape, values.len());
        let &[1, channels, height, width] = shape.as_slice() else { return Err(unfit().into()) };
        if channels != self.channels && channels != 2 * self.channels {
            return Err(unfit().into());
        }
        let deviations = values.split_off(self.channels * height * width);
        let deviation = |x: f32| exp(f64::from(0.5 * x.clamp(LOG_VARIANCE.0, LOG_VARIANCE.1))) as f32;
        Ok(LatentDistribution {
            means: Latents::new(values, self.channels, height, width)?,
            deviations: deviations.into_iter().map(deviation).collect(),
            scaling_factor: self.scaling_factor,
            shift_factor: self.shift_factor,
        })
    }
}

/// What latents an encoder takes to be possible for a picture.
#[derive(Debug, Clone)]
pub struct LatentDistribution {
    means: Latents,
    /// As many, or none: such an encoder is sure.
    deviations: Vec<f32>,
    scaling_factor: f32,
    shift_factor: f32,
}

impl LatentDistribution {
    /// How much noise a draw takes: a value for each of the latents, or none.
    pub fn noise_len(&self) -> usize {
        self.deviations.len()
    }

    /// The latents that this noise draws, as denoising knows them: after the multiplication by the scaling factor.
    ///
    /// # Panics
    /// If there is not as much noise as [`noise_len`](Self::noise_len) says.
    pub fn sample(&self, noise: &[f32]) -> Latents {
        assert_eq!(noise.len(), self.noise_len(), "noise for other latents");
        let mut latents = self.means.clone();
        let spread = self.deviations.iter().zip(noise);
        latents.values_mut().iter_mut().zip(spread).for_each(|(x, (deviation, z))| *x += deviation * z);
        let scale = |x: &mut f32| *x = (*x - self.shift_factor) * self.scaling_factor;
        latents.values_mut().iter_mut().for_each(scale);
        latents
    }
}
