//! The header: what is in the file, and where.

use std::{collections::HashSet, fmt::Display, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Blob, BlobName, BundleError, Classes, Component, PREAMBLE_LEN, PipelineKind, SECTION_ALIGN, TensorEntry,
    blob::{Cursor, Slot, section},
    preamble, wire,
};

/// All that a bundle says about itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Header {
    /// How the components make a picture together.
    pub pipeline: Pipeline,
    /// The terms of everything in the file.
    pub licences: Vec<Licence>,
    /// Files taken over as they were.
    pub files: Vec<FileEntry>,
    /// The networks.
    pub components: Vec<ComponentEntry>,
}

/// How the components make a picture together, and what to ask of them by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// How they do it.
    pub kind: PipelineKind,
    /// The model's own name.
    pub name: String,
    /// The source's `scheduler_config.json`, verbatim.
    pub scheduler: Value,
    /// Latents are divided by this before they are decoded, 1e-6 to 1e6.
    pub scaling_factor: f64,
    /// Added after that division, -1e6 to 1e6.
    pub shift_factor: f64,
    /// Channels of the latents, 1 to 1024.
    pub latent_channels: usize,
    /// Pixels along one side of a latent cell, 1 to 1024.
    pub vae_scale_factor: usize,
    /// A multiple of `vae_scale_factor`, at most 65536.
    pub default_width_px: usize,
    /// A multiple of `vae_scale_factor`, at most 65536.
    pub default_height_px: usize,
    /// `num_inference_steps` if the request names none, 1 to 1000.
    pub default_steps: usize,
    /// `guidance_scale` if the request names none, 0 to 1000.
    pub default_guidance: f64,
    /// The sampler if the request names none.
    pub sampler: String,
    /// Whether an empty negative prompt is zeros and not the embedding of nothing; of models with two text encoders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_zeros_for_empty_prompt: Option<bool>,
    /// What pictures can be asked for, of models that are told a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Classes>,
    /// How pictures are made larger, of models that do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_res: Option<SuperRes>,
    /// What models of the kind `unclip` know beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclip: Option<Unclip>,
    /// The model that has the components that are not in this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// What quantisation cost, as the importer measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
    /// Where the model comes from.
    pub provenance: Value,
}

/// How pictures are made larger by diffusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperRes {
    /// The `scheduler_config.json` of that stage, verbatim.
    pub scheduler: Value,
    /// Its steps if the request names none, 1 to 1000.
    pub default_steps: usize,
}

/// How embeddings of pictures are made and used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unclip {
    /// The prior's `scheduler_config.json`, verbatim; null without a prior.
    pub prior_scheduler: Value,
    /// Steps of the prior if the request names none, 1 to 1000.
    pub default_prior_steps: usize,
    /// `guidance_scale` of the prior if the request names none, 0 to 1000.
    pub default_prior_guidance: f64,
    /// The `scheduler_config.json` of the noise that may be put over embeddings, verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_noising_scheduler: Option<Value>,
    /// The length to which embeddings are brought before they are used, 1e-6 to 1e6; they are used as they are if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_norm: Option<f64>,
}

/// Another model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Its name in the folder of this file.
    pub file: String,
    /// Its model's hash.
    pub model_hash: String,
}

/// The terms of a part of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// What is licensed.
    pub name: String,
    /// An SPDX expression.
    pub spdx: String,
    /// The text that must travel along.
    pub notice: String,
}

/// A file taken over as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// A relative path, such as `tokenizer/vocab.json`.
    pub name: String,
    /// Its contents.
    pub blob: Blob,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentEntry {
    /// Which network it is.
    pub name: Component,
    /// The source's `config.json`, verbatim.
    pub config: Value,
    /// The operations, without their weights.
    pub graph: Blob,
    /// The weights.
    pub tensors: Vec<TensorEntry>,
}

impl ComponentEntry {
    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.tensors.iter().find(|tensor| tensor.name() == name)
    }
}

impl Header {
    /// The header of a whole file, checked against the length of that file.
    ///
    /// # Errors
    /// - [`BundleError::NotABundle`], [`BundleError::Version`], [`BundleError::Flags`],
    ///   [`BundleError::HeaderLen`], [`BundleError::HeaderHash`]: the preamble.
    /// - As [`Header::from_json`] for the header itself.
    pub fn parse(file: &[u8]) -> Result<Self, BundleError> {
        let (_, json) = preamble::split(file)?;
        Self::from_json(json, file.len() as u64)
    }

    /// The header that `json` is, checked for a file of `file_len` bytes.
    ///
    /// # Errors
    /// - [`BundleError::Json`], [`BundleError::Unknown`]: not a header of this version.
    /// - [`BundleError::Pipeline`]: a number out of its range.
    /// - [`BundleError::Rank`], [`BundleError::EmptyDimension`], [`BundleError::NotAMatrix`],
    ///   [`BundleError::ScalesMissing`], [`BundleError::ScalesUnexpected`], [`BundleError::TooLarge`],
    ///   [`BundleError::TensorLen`]: a tensor that cannot be.
    /// - [`BundleError::Name`], [`BundleError::Duplicate`], [`BundleError::Offset`]: a blob that may not
    ///   be called so or lie there.
    /// - [`BundleError::Truncated`], [`BundleError::TrailingBytes`]: the blobs end elsewhere than the
    ///   file.
    pub fn from_json(json: &[u8], file_len: u64) -> Result<Self, BundleError> {
        let wire: wire::Header = serde_json::from_slice(json).map_err(BundleError::Json)?;
        let header = wire.check()?;
        header.pipeline.check()?;
        header.check_names()?;
        let data_start = (PREAMBLE_LEN + json.len()).next_multiple_of(SECTION_ALIGN) as u64;
        let end = header.check_offsets(data_start)?;
        match file_len {
            len if len < end => Err(BundleError::Truncated { expected: end, got: len }),
            len if len > end => Err(BundleError::TrailingBytes { expected: end, got: len }),
            _ => Ok(header),
        }
    }

    /// The component of that name, if the model has one.
    pub fn component(&self, component: Component) -> Option<&ComponentEntry> {
        self.components.iter().find(|entry| entry.name == component)
    }

    /// Every blob, in the order of the file.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let files = self.files.iter().map(|file| (BlobName::File(&file.name), &file.blob));
        let graphs = self.components.iter().map(|c| (BlobName::Graph(c.name), &c.graph));
        let tensors = self.components.iter().flat_map(|component| {
            let name = component.name;
            section(component.tensors.iter().map(move |t| (BlobName::Tensor(name, t.name()), t.blob())))
        });
        section(files.chain(graphs)).chain(tensors)
    }

    /// The same blobs in the same order, to be placed and hashed by the writer.
    pub(super) fn blobs_mut(&mut self) -> impl Iterator<Item = &mut Blob> {
        let files = self.files.iter_mut().map(|file| &mut file.blob);
        let (graphs, tensors): (Vec<_>, Vec<_>) =
            self.components.iter_mut().map(|c| (&mut c.graph, &mut c.tensors)).unzip();
        files.chain(graphs).chain(tensors.into_iter().flatten().map(TensorEntry::blob_mut))
    }

    /// Each component has one graph, so a component that is listed twice is found here too.
    fn check_names(&self) -> Result<(), BundleError> {
        let mut seen = HashSet::new();
        for Slot { name, .. } in self.slots() {
            name.check()?;
            if !seen.insert(name) {
                return Err(BundleError::Duplicate { name: name.to_string() });
            }
        }
        Ok(())
    }

    /// Returns where the last blob ends.
    fn check_offsets(&self, data_start: u64) -> Result<u64, BundleError> {
        let mut cursor = Cursor::new(data_start);
        for slot in self.slots() {
            let (expected, got) = (cursor.place(&slot)?, slot.blob.offset);
            if expected != got {
                return Err(BundleError::Offset { name: slot.name.to_string(), expected, got });
            }
        }
        Ok(cursor.end())
    }
}

impl Pipeline {
    fn check(&self) -> Result<(), BundleError> {
        within("scaling_factor", self.scaling_factor, 1e-6..=1e6)?;
        within("shift_factor", self.shift_factor, -1e6..=1e6)?;
        within("latent_channels", self.latent_channels, 1..=1024)?;
        within("vae_scale_factor", self.vae_scale_factor, 1..=1024)?;
        within("default_steps", self.default_steps, 1..=1000)?;
        within("default_guidance", self.default_guidance, 0.0..=1000.0)?;
        if let Some(super_res) = &self.super_res {
            within("super_res.default_steps", super_res.default_steps, 1..=1000)?;
        }
        if let Some(name) = self.classes.as_ref().and_then(Classes::unusable_name) {
            let (expected, got) = ("a name of its own for each class".to_owned(), format!("{name:?}"));
            return Err(BundleError::Pipeline { field: "classes", expected, got });
        }
        self.check_size("default_width_px", self.default_width_px)?;
        self.check_size("default_height_px", self.default_height_px)?;
        if let Some(unclip) = &self.unclip {
            within("default_prior_steps", unclip.default_prior_steps, 1..=1000)?;
            within("default_prior_guidance", unclip.default_prior_guidance, 0.0..=1000.0)?;
            unclip.embedding_norm.map_or(Ok(()), |norm| within("embedding_norm", norm, 1e-6..=1e6))?;
        }
        self.base.as_ref().map_or(Ok(()), Base::check)
    }

    fn check_size(&self, field: &'static str, px: usize) -> Result<(), BundleError> {
        within(field, px, self.vae_scale_factor..=65536)?;
        if px.is_multiple_of(self.vae_scale_factor) {
            return Ok(());
        }
        let expected = format!("a multiple of {}", self.vae_scale_factor);
        Err(BundleError::Pipeline { field, expected, got: px.to_string() })
    }
}

impl Base {
    /// A plain name: it cannot lead out of the folder.
    fn check(&self) -> Result<(), BundleError> {
        let is_plain = !matches!(self.file.as_str(), "" | "." | "..")
            && !self.file.contains(|c: char| c == '/' || c == '\\' || c.is_control());
        if is_plain {
            return Ok(());
        }
        let expected = "the name of a file in the same folder".to_owned();
        Err(BundleError::Pipeline { field: "base", expected, got: format!("{:?}", self.file) })
    }
}

fn within<T: Copy + PartialOrd + Display>(
    field: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), BundleError> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(BundleError::Pipeline { field, expected, got: value.to_string() })
}
