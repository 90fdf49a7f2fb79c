//! Which pictures are most like a sentence, in CLIP's eyes.

use std::sync::Arc;

use super::PipelineError;
use crate::bundle::Bundle;
use crate::clip::{ImageEncoder, normalise, similarity};
use crate::engine::Resources;
use crate::tensor::Rgb8;
use crate::text::Prompt;
use crate::text::encoder::TextEncoder;

/// A sentence to hold pictures against.
pub struct Critic {
    sentence: Vec<f32>,
}

impl Critic {
    /// Embeds the sentence, and makes sure that pictures can be embedded too.
    ///
    /// # Errors
    /// [`PipelineError::Encode`], [`PipelineError::ImageEncoder`].
    pub fn new(
        bundle: &Arc<Bundle>,
        resources: &Resources,
        sentence: &Prompt,
    ) -> Result<Self, PipelineError> {
        ImageEncoder::load(bundle, resources)?.prepare()?;
        let mut sentence = TextEncoder::load(bundle, resources)?.embed(sentence)?;
        normalise(&mut sentence);
        Ok(Self { sentence })
    }

    /// How similar each picture is to the sentence, -1 to 1.
    ///
    /// # Errors
    /// [`PipelineError::ImageEncoder`].
    pub fn scores<'a>(
        &self,
        bundle: &Arc<Bundle>,
        resources: &Resources,
        pictures: impl Iterator<Item = &'a Rgb8>,
    ) -> Result<Vec<f32>, PipelineError> {
        let mut encoder = ImageEncoder::load(bundle, resources)?;
        pictures.map(|picture| Ok(similarity(&self.sentence, &encoder.embed(picture)?))).collect()
    }
}
