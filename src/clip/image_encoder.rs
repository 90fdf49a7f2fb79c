//! Picture -> embedding.

use std::sync::Arc;

use super::preprocess::{PreprocessError, Preprocessor};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::Rgb8;

/// Where the bundle keeps the configuration of an image encoder.
const CONFIG: &[&str] =
    &["image_encoder/preprocessor_config.json", "feature_extractor/preprocessor_config.json"];
/// The same of a safety checker; diffusers' folders have it where the second says.
const SAFETY_CONFIG: &[&str] =
    &["safety_checker/preprocessor_config.json", "feature_extractor/preprocessor_config.json"];

/// The embedding, among the outputs of the network.
const OUTPUT: &str = "image_embeds";

/// Why a picture was not embedded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bundle does not say how pictures are prepared.
    #[error("this model has no {}: import it again from a folder that has one", names.join(" or "))]
    NoConfig {
        /// The files that would say it.
        names: &'static [&'static str],
    },
    /// What it says cannot be followed.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The network cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// CLIP's image encoder, or that of a safety checker, and what comes before it.
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
        Self::of(bundle, bundle::Component::ImageEncoder, CONFIG, resources)
    }

    /// Loads the image encoder of a bundle's safety checker.
    ///
    /// # Errors
    /// As [`ImageEncoder::load`].
    pub fn of_safety_checker(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, ImageError> {
        Self::of(bundle, bundle::Component::SafetyChecker, SAFETY_CONFIG, resources)
    }

    fn of(
        bundle: &Arc<Bundle>,
        kind: bundle::Component,
        names: &'static [&'static str],
        resources: &Resources,
    ) -> Result<Self, ImageError> {
        let component = Component::load(bundle, kind, resources)?;
        let config = names.iter().find_map(|name| bundle.file(name)).ok_or(ImageError::NoConfig { names })?;
        Ok(Self { preprocessor: Preprocessor::from_json(config)?, component })
    }

    /// Makes sure that pictures can be embedded: all but the arithmetic is tried.
    ///
    /// # Errors
    /// [`ImageError::Engine`].
    pub fn prepare(&mut self) -> Result<(), ImageError> {
        let side = self.preprocessor.side_px();
        self.component.check_output(OUTPUT)?;
        self.component.prepare(&[NamedTensor::new(
            "pixel_values",
            &[1, 3, side, side],
            vec![0.0; 3 * side * side],
        )])?;
        Ok(())
    }

    /// Embeds a picture; the embedding has length 1.
    ///
    /// # Errors
    /// [`ImageError::Engine`].
    pub fn embed(&mut self, picture: &Rgb8) -> Result<Vec<f32>, ImageError> {
        let mut embedding = self.embed_as_is(picture)?;
        super::normalise(&mut embedding);
        Ok(embedding)
    }

    /// Embeds a picture; the embedding has the length that the network gives it.
    ///
    /// # Errors
    /// [`ImageError::Engine`].
    pub fn embed_as_is(&mut self, picture: &Rgb8) -> Result<Vec<f32>, ImageError> {
        let side = self.preprocessor.side_px();
        let pixels =
            NamedTensor::new("pixel_values", &[1, 3, side, side], self.preprocessor.prepare(picture));
        Ok(self.component.run_for(OUTPUT, &[pixels])?.values)
    }
}
