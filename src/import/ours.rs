//! `tintype.json`, a file of our own beside `model_index.json`; without it the defaults are those of the model's family, by its
//! scheduler:
//! ```json
//! { "name": "emoji", "default_steps": 8, "default_guidance": 2.0, "sampler": "ddim", "f16": ["conv_in", "conv_out"],
//!   "classes": { "null": 2, "names": [{ "name": "cat", "aliases": ["kitten"] }, { "name": "dog" }] },
//!   "channel_error_max": 0.01, "licences": [{ "name": "...", "spdx": "MIT", "notice": "..." }], "provenance": { "...": "..." } }
//! ```
//! For unCLIP it may also give `default_prior_steps`, `default_prior_guidance` and `embedding_norm`. With `"base":
//! "emoji.tintype"` the components that the folder does not have are those of that model, which has to lie where the new one is
//! written.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ImportError;
use super::config_file;
use crate::bundle::{Classes, Licence};
use crate::pipeline::Sampler;

/// Up to this relative L2, an int8 matrix has one scale for each channel. Normally distributed weights are at 0.008 then, and
/// at 0.005 with a scale for each 32 inputs; Stable Diffusion's networks stay within 2 % of f32 with the latter.
const CHANNEL_ERROR_MAX: f64 = 0.005;

/// `tintype.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ours {
    /// The model's name.
    pub name: Option<String>,
    /// Steps to draw with.
    pub default_steps: Option<usize>,
    /// Guidance to draw with.
    pub default_guidance: Option<f64>,
    /// The sampler to draw with.
    pub sampler: Option<String>,
    /// What pictures can be asked for, of a model that is told a class by its number.
    pub classes: Option<Classes>,
    /// The file name of the model that has the other components.
    pub base: Option<String>,
    /// Steps of the prior.
    pub default_prior_steps: Option<usize>,
    /// Guidance of the prior.
    pub default_prior_guidance: Option<f64>,
    /// The length to which embeddings of pictures are brought.
    pub embedding_norm: Option<f64>,
    /// The terms of its parts.
    pub licences: Vec<Licence>,
    /// Where it comes from.
    pub provenance: Value,
    /// The modules whose weights stay f16 in an int8 model.
    pub f16: Option<Vec<String>>,
    /// The relative L2 up to which an int8 matrix has one scale for each channel.
    pub channel_error_max: f64,
}

impl Default for Ours {
    fn default() -> Self {
        Self {
            name: None,
            default_steps: None,
            default_guidance: None,
            sampler: None,
            classes: None,
            base: None,
            default_prior_steps: None,
            default_prior_guidance: None,
            embedding_norm: None,
            licences: Vec::new(),
            provenance: json!({}),
            f16: None,
            channel_error_max: CHANNEL_ERROR_MAX,
        }
    }
}

impl Ours {
    /// The file of a folder, or what holds without one.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::Config`].
    pub fn of_folder(folder: &Path) -> Result<Self, ImportError> {
        let path = folder.join("tintype.json");
        if !path.exists() {
            return Ok(Self::default());
        }
        let ours: Self = config_file::parse(&path)?;
        match &ours.sampler {
            Some(name) if Sampler::from_name(name).is_none() => {
                let names = Sampler::ALL.map(Sampler::name).join(", ");
                let reason = format!("there is no sampler `{name}`, only {names}");
                Err(ImportError::Config { path, reason })
            }
            _ => Ok(ours),
        }
    }
}
