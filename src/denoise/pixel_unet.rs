//! The network that says, for a noisy picture and a class, what of it is noise.

use std::sync::Arc;

use super::guidance::{self, GuidanceScale};
use super::network::Network;
use super::run::At;
use crate::bundle::{self, Bundle};
use crate::engine::{EngineError, NamedTensor, Resources};
use crate::tensor::Latents;

/// A UNet of pixels.
pub struct PixelUnet(Network);

impl PixelUnet {
    /// Loads the UNet of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none or its graph cannot be read.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EngineError> {
        Network::load(bundle, bundle::Component::Unet, resources).map(Self)
    }

    /// Predicts for a picture, `[1, 3, height, width]`, of the class with this number; as long as the picture.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph: among others, if it has classes and none is given.
    pub fn predict(
        &mut self,
        pixels: &Latents,
        at: At,
        label: Option<usize>,
    ) -> Result<Vec<f32>, EngineError> {
        self.0.predict(&inputs(pixels, at, label))
    }

    /// As [`PixelUnet::predict`], away from the class `null` and towards `label`.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict_guided(
        &mut self,
        pixels: &Latents,
        at: At,
        [label, null]: [usize; 2],
        scale: GuidanceScale,
    ) -> Result<Vec<f32>, EngineError> {
        let both = [label, null].map(|label| inputs(pixels, at, Some(label)));
        let [cond, mut noise_pred] = self.0.predict_both(both)?;
        guidance::combine(&mut noise_pred, &cond, scale);
        Ok(noise_pred)
    }
}

fn inputs(pixels: &Latents, at: At, label: Option<usize>) -> Vec<NamedTensor> {
    let sample = pixels.values().iter().map(|x| x / at.divisor).collect();
    let label = label.map(|label| NamedTensor::new("class_labels", &[1], vec![label as f32]));
    let inputs = [
        NamedTensor::new("sample", &pixels.shape(), sample),
        NamedTensor::new("timestep", &[1], vec![at.timestep]),
    ];
    inputs.into_iter().chain(label).collect()
}
