//! Sentences and pictures to embeddings of one space.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PipelineError;
use crate::bundle::Bundle;
use crate::clip::{self, ImageEncoder};
use crate::engine::Resources;
use crate::picture;
use crate::tensor::Rgb8;
use crate::text::Prompt;
use crate::text::encoder::TextEncoder;

/// Embeddings of length 1: the texts' first, then the pictures', each in the order given.
pub struct Embedded {
    /// The embeddings.
    pub items: Vec<Vec<f32>>,
}

impl Embedded {
    /// The cosine of each item to each.
    pub fn similarity(&self) -> Vec<Vec<f32>> {
        let row = |a: &Vec<f32>| self.items.iter().map(|b| clip::similarity(a, b)).collect();
        self.items.iter().map(row).collect()
    }
}

/// Embeds texts and picture files with the model in `bundle`; an encoder that has nothing to do is not loaded.
///
/// # Errors
/// [`PipelineError`], naming the picture where there is one.
pub fn embed(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    texts: &[Prompt],
    pictures: &[PathBuf],
) -> Result<Embedded, PipelineError> {
    let mut items = Vec::with_capacity(texts.len() + pictures.len());
    if !texts.is_empty() {
        let mut encoder = TextEncoder::load(bundle, resources)?;
        for text in texts {
            let mut embedding = encoder.embed(text)?;
            clip::normalise(&mut embedding);
            items.push(embedding);
        }
    }
    if !pictures.is_empty() {
        let mut encoder = ImageEncoder::load(bundle, resources)?;
        for path in pictures {
            items.push(encoder.embed(&read_picture(path)?)?);
        }
    }
    Ok(Embedded { items })
}

/// The picture in a file.
///
/// # Errors
/// [`PipelineError::Read`], [`PipelineError::Picture`].
pub fn read_picture(path: &Path) -> Result<Rgb8, PipelineError> {
    let file = std::fs::read(path).map_err(|source| PipelineError::Read { path: path.to_owned(), source })?;
    picture::read(&file).map_err(|source| PipelineError::Picture { path: path.to_owned(), source })
}
