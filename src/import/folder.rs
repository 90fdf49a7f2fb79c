//! The folder that optimum writes: one folder a component, and the files that say how they go together.
//!
//! A file `tintype.json` of our own may stand beside `model_index.json`; without it the defaults are those of
//! the model's family, by its scheduler:
//! ```json
//! { "name": "emoji", "default_steps": 8, "default_guidance": 2.0, "sampler": "ddim", "f16": ["conv_in", "conv_out"],
//!   "channel_error_max": 0.01, "licences": [{ "name": "...", "spdx": "MIT", "notice": "..." }], "provenance": { "...": "..." } }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::ImportError;
use super::family::Family;
use crate::bundle::{Component, Licence, Pipeline};
use crate::clip::SafetyChecker;
use crate::engine::free_dimension;
use crate::error::chain;
use crate::pipeline::Sampler;

/// Files that go into the bundle as they are.
const BUNDLED: &[&str] = &[
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/special_tokens_map.json",
    "image_encoder/preprocessor_config.json",
    "safety_checker/preprocessor_config.json",
    "feature_extractor/preprocessor_config.json",
    SAFETY_CONCEPTS,
];

/// The concepts that a safety checker blocks.
const SAFETY_CONCEPTS: &str = "safety_checker/concepts.json";

/// What the framework that a component comes from computed with it; goes into the bundle as `selftest/NAME.npz`.
const REFERENCE: &str = "reference.npz";

/// A reference larger than this is no part of a model.
const REFERENCE_MAX_BYTES: u64 = 4 << 20;

/// A configuration file larger than this is not one.
const CONFIG_MAX_BYTES: u64 = 16 << 20;

/// Up to this relative L2, an int8 matrix has one scale for each channel. Normally distributed weights are at 0.008 then, and
/// at 0.005 with a scale for each 32 inputs; Stable Diffusion's networks stay within 2 % of f32 with the latter.
const CHANNEL_ERROR_MAX: f64 = 0.005;

/// A pipeline's folder, all but its graphs read.
pub struct Folder {
    path: PathBuf,
    configs: BTreeMap<usize, (Component, Value)>,
    scheduler: Value,
    files: Vec<(String, Vec<u8>)>,
    ours: Ours,
}

/// `tintype.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ours {
    name: Option<String>,
    default_steps: Option<usize>,
    default_guidance: Option<f64>,
    sampler: Option<String>,
    licences: Vec<Licence>,
    provenance: Value,
    f16: Option<Vec<String>>,
    channel_error_max: f64,
}

impl Default for Ours {
    fn default() -> Self {
        Self {
            name: None,
            default_steps: None,
            default_guidance: None,
            sampler: None,
            licences: Vec::new(),
            provenance: json!({}),
            f16: None,
            channel_error_max: CHANNEL_ERROR_MAX,
        }
    }
}

impl Ours {
    fn read(path: &Path) -> Result<Self, ImportError> {
        let ours: Self = parse(path)?;
        match &ours.sampler {
            Some(name) if Sampler::from_name(name).is_none() => {
                let names = Sampler::ALL.map(Sampler::name).join(", ");
                let reason = format!("there is no sampler `{name}`, only {names}");
                Err(ImportError::Config { path: path.to_owned(), reason })
            }
            _ => Ok(ours),
        }
    }
}

impl Folder {
    /// Reads the configuration of the pipeline at `path`.
    ///
    /// # Errors
    /// - [`ImportError::Read`], [`ImportError::Config`]: a file that cannot be read or is not JSON.
    /// - [`ImportError::NoComponents`] if there is nothing to import.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let mut configs = BTreeMap::new();
        for (order, &component) in Component::ALL.iter().enumerate() {
            if path.join(component.name()).join("model.onnx").exists() {
                configs.insert(order, (component, parse(&path.join(component.name()).join("config.json"))?));
            }
        }
        if configs.is_empty() {
            return Err(ImportError::NoComponents { path: path.to_owned() });
        }
        let mut files = Vec::new();
        for &name in BUNDLED.iter().filter(|name| path.join(name).exists()) {
            files.push((name.to_owned(), read(&path.join(name))?));
        }
        for (component, _) in configs.values() {
            let reference = path.join(component.name()).join(REFERENCE);
            match std::fs::metadata(&reference) {
                Ok(file) if file.len() <= REFERENCE_MAX_BYTES => {
                    files.push((format!("selftest/{}.npz", component.name()), read(&reference)?));
                }
                Ok(file) => log::warn!("{} is left out: {} bytes", reference.display(), file.len()),
                Err(_) => {}
            }
        }
        if configs.values().any(|(component, _)| *component == Component::SafetyChecker) {
            check_safety(path, &files)?;
        }
        let scheduler = scheduler(&path.join("scheduler/scheduler_config.json"))?;
        let ours = path.join("tintype.json");
        let ours = if ours.exists() { Ours::read(&ours)? } else { Ours::default() };
        Ok(Self { path: path.to_owned(), configs, scheduler, files, ours })
    }

    /// The components that the folder has.
    pub fn components(&self) -> Vec<Component> {
        self.configs.values().map(|(component, _)| *component).collect()
    }

    /// A component's `config.json`.
    pub fn config(&self, component: Component) -> &Value {
        self.configs.values().find(|(c, _)| *c == component).map_or(&Value::Null, |(_, config)| config)
    }

    /// A component's graph.
    pub fn graph_file(&self, component: Component) -> PathBuf {
        self.path.join(component.name()).join("model.onnx")
    }

    /// The files that are bundled as they are.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, contents)| (&name[..], &contents[..]))
    }

    /// The licences that `tintype.json` names.
    pub fn licences(&self) -> Vec<Licence> {
        self.ours.licences.clone()
    }

    /// The modules whose weights stay f16 in an int8 model, if `tintype.json` names them.
    pub fn f16_modules(&self) -> Option<&[String]> {
        self.ours.f16.as_deref()
    }

    /// The relative L2 up to which an int8 matrix has one scale for each channel.
    pub fn channel_error_max(&self) -> f64 {
        self.ours.channel_error_max
    }

    /// The size of a free dimension for the analysis of a graph: any that the network can take, height and
    /// width different so that they are not mistaken for each other.
    pub fn analysis_size(&self, component: Component, input: &str, at: usize) -> usize {
        let numbers = |component, key: &str| self.number(component, key);
        free_dimension(&numbers, component, input, at, [128, 192], 8)
    }

    /// How the components go together.
    pub fn pipeline(&self) -> Pipeline {
        let vae = if self.config(Component::VaeDecoder).is_null() {
            Component::VaeEncoder
        } else {
            Component::VaeDecoder
        };
        let levels = self.config(vae).get("block_out_channels").and_then(Value::as_array).map_or(4, Vec::len);
        let scale = 1usize << levels.clamp(1, 8).saturating_sub(1);
        let cells = self.number(Component::Unet, "sample_size").unwrap_or(64);
        let is_told_guidance = self.number(Component::Unet, "time_cond_proj_dim").is_some();
        let family = Family::new(&self.scheduler, is_told_guidance);
        let factor = |key: &str| self.config(vae).get(key).and_then(Value::as_f64);
        Pipeline {
            kind: "stable-diffusion".into(),
            name: self.name(),
            scheduler: self.scheduler.clone(),
            scaling_factor: factor("scaling_factor").unwrap_or(0.18215),
            shift_factor: factor("shift_factor").unwrap_or(0.0),
            latent_channels: self.number(vae, "latent_channels").unwrap_or(4),
            vae_scale_factor: scale,
            default_width_px: cells * scale,
            default_height_px: cells * scale,
            default_steps: self.ours.default_steps.unwrap_or(family.steps),
            default_guidance: self.ours.default_guidance.unwrap_or(family.guidance),
            sampler: self.ours.sampler.clone().unwrap_or_else(|| family.sampler.name().into()),
            report: None,
            provenance: self.ours.provenance.clone(),
        }
    }

    fn name(&self) -> String {
        let folder = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.ours.name.clone().or(folder).unwrap_or_else(|| "model".into())
    }

    fn number(&self, component: Component, key: &str) -> Option<usize> {
        self.config(component).get(key)?.as_u64().and_then(|n| usize::try_from(n).ok())
    }
}

/// A safety checker without concepts would let everything through.
fn check_safety(path: &Path, files: &[(String, Vec<u8>)]) -> Result<(), ImportError> {
    let wrong = |reason| ImportError::Config { path: path.join(SAFETY_CONCEPTS), reason };
    let file = files.iter().find(|(name, _)| name == SAFETY_CONCEPTS);
    let (_, bytes) = file.ok_or_else(|| {
        wrong("it is not there: tools/export/safety_checker.py makes the folder of a safety checker".into())
    })?;
    SafetyChecker::from_json(bytes).map(drop).map_err(|error| wrong(chain(&error)))
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > CONFIG_MAX_BYTES {
        let reason = format!("{len} bytes are more than the {CONFIG_MAX_BYTES} that such a file may have");
        return Err(ImportError::Config { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}

fn scheduler(path: &Path) -> Result<Value, ImportError> {
    parse_text(path, standard(&String::from_utf8_lossy(&read(path)?)).as_bytes())
}

/// JSON as Python writes it, with null for numbers that are none, such as `"lambda_min_clipped": -Infinity`.
fn standard(text: &str) -> String {
    let outside = |part: &str| {
        ["-Infinity", "Infinity", "NaN"].iter().fold(part.to_owned(), |part, word| part.replace(word, "null"))
    };
    // Every other part stands between quotes; no string of a scheduler's has a quote in it.
    let parts = text.split('"').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 0 { outside(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("\"")
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    parse_text(path, &read(path)?)
}

fn parse_text<T: serde::de::DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, ImportError> {
    let failed =
        |error: serde_json::Error| ImportError::Config { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_read_as_null() {
        let text =
            r#"{"lambda_min_clipped": -Infinity, "a": [NaN, Infinity], "_class_name": "NaN -Infinity"}"#;
        assert_eq!(
            standard(text),
            r#"{"lambda_min_clipped": null, "a": [null, null], "_class_name": "NaN -Infinity"}"#
        );
    }
}
