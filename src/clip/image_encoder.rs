//! Picture -> embedding.

use std::sync::Arc;

use super::preprocess::{PreprocessError, Preprocessor};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::Rgb8;

/// Where the bundle keeps the configuration.
const CONFIG: &str = "image_encoder/preprocessor_config.json";

/// Why a picture was not embedded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bundle does not say how pictures are prepared.
    #[error("this model has no {CONFIG}: import it again from a folder that has one")]
    NoConfig,
    /// What it says cannot be followed.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The network cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// CLIP's image encoder and what comes before it.
pub struct ImageEncoder {
    preprocessor: Preprocessor,
    component: Component,
}

impl ImageEncoder {
    /// Loads the image encoder of a bundle.
    ///
    /// # Errors
    /// - [`ImageError::NoConfig`], [`ImageError::Preprocess`]: its configuration.
    /// - [`ImageError::Engine`]: its network.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, ImageError> {
        let component = Component::load(bundle, bundle::Component::ImageEncoder, resources)?;
        let preprocessor = Preprocessor::from_json(bundle.file(CONFIG).ok_or(ImageError::NoConfig)?)?;
        Ok(Self { preprocessor, component })
    }

    /// Embeds a picture; the embedding has length 1.
    ///
    /// # Errors
    /// [`ImageError::Engine`].
    pub fn embed(&mut self, picture: &Rgb8) -> Result<Vec<f32>, ImageError> {
        let side = self.preprocessor.side_px();
        let pixels =
            NamedTensor::new("pixel_values", &[1, 3, side, side], self.preprocessor.prepare(picture));
        let mut embedding = self.component.run_for("image_embeds", &[pixels])?.values;
        super::normalise(&mut embedding);
        Ok(embedding)
    }
}
