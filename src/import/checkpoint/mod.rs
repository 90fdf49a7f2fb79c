//! Weights by the names that diffusers and transformers give them, in files that may name them otherwise.

mod derived;
mod single_file;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::architectures::ArchitectureError;
use crate::names::{Place, autoencoder, clip};
use crate::tensor_file::{Tensor, TensorFile, TensorFileError};
pub use single_file::{Family, SingleFile};

/// The files of one network, or of all that share a file.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<Arc<TensorFile>>,
    names: Names,
}

/// How the files name things.
#[derive(Debug, Clone)]
pub enum Names {
    /// As diffusers and transformers do today, or did before.
    Diffusers,
    /// As the original Stable Diffusion did, for one of its networks.
    Original(single_file::Network),
}

/// One weight, where it lies.
#[derive(Debug, Clone)]
pub struct Stored {
    file: Arc<TensorFile>,
    tensor: Tensor,
    place: Place,
    shape: Vec<usize>,
}

/// The table of a checkpoint in several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, PathBuf>,
}

impl Checkpoint {
    /// One file with diffusers' names.
    ///
    /// # Errors
    /// [`TensorFileError`].
    pub fn open(file: &Path) -> Result<Self, TensorFileError> {
        Ok(Self { files: vec![Arc::new(TensorFile::open(file)?)], names: Names::Diffusers })
    }

    /// The files that an `.index.json` names, which lie beside it.
    ///
    /// # Errors
    /// [`TensorFileError`]; [`TensorFileError::Malformed`] if the index is none, or names files of other folders.
    pub fn open_sharded(path: &Path) -> Result<Self, TensorFileError> {
        let malformed = |reason: String| TensorFileError::Malformed { path: path.to_owned(), reason };
        let text = std::fs::read(path).map_err(|error| malformed(error.to_string()))?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        let shards: BTreeSet<&PathBuf> = index.weight_map.values().collect();
        let mut files = Vec::with_capacity(shards.len());
        for shard in shards {
            if shard.components().count() != 1 || shard.file_name().is_none() {
                return Err(malformed(format!(
                    "it names `{}`, which is not a file beside it",
                    shard.display()
                )));
            }
            files.push(Arc::new(TensorFile::open(&path.with_file_name(shard))?));
        }
        if files.is_empty() {
            return Err(malformed("it names no file".into()));
        }
        Ok(Self { files, names: Names::Diffusers })
    }

    /// One network of a file that names things as the original Stable Diffusion did.
    fn original(file: &Arc<TensorFile>, network: single_file::Network) -> Self {
        Self { files: vec![file.clone()], names: Names::Original(network) }
    }

    /// The weight that diffusers calls `name`, in this shape; a matrix may also lie there as a convolution of one tap, and the
    /// other way round.
    ///
    /// # Errors
    /// - [`ArchitectureError::Missing`], [`ArchitectureError::Shape`].
    /// - [`ArchitectureError::File`]: numbers of another type.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Stored, ArchitectureError> {
        let places = self.places(name);
        let found = places.iter().find_map(|place| Some((self.file_of(&place.name)?, place)));
        let missing = || ArchitectureError::Missing {
            file: self.path().to_owned(),
            tensor: places.first().map_or(name, |place| &place.name).to_owned(),
        };
        let (file, place) = found.ok_or_else(missing)?;
        let tensor = file.tensor(&place.name)?.ok_or_else(missing)?;
        let mut got = tensor.shape.clone();
        if let (Some((_, parts)), Some(rows)) = (place.part, got.first_mut()) {
            *rows = if rows.is_multiple_of(parts) { *rows / parts } else { 0 };
        }
        if place.transposed {
            got.reverse();
        }
        if without_ones(&got) != without_ones(shape) {
            let (file, tensor) = (file.path().to_owned(), place.name.clone());
            return Err(ArchitectureError::Shape { file, tensor, expected: shape.to_vec(), got });
        }
        Ok(Stored { file: file.clone(), tensor, place: place.clone(), shape: shape.to_vec() })
    }

    /// The shape of the weight that diffusers calls `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places(name).iter().find_map(|place| self.file_of(&place.name)?.shape(&place.name))
    }

    /// A file of it, for messages.
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// A tensor that no network of this checkpoint has used, and that is none of those which computations leave out.
    pub fn unused(&self, used: &HashSet<&str>) -> Option<(PathBuf, String)> {
        let prefix = match &self.names {
            Names::Diffusers => "",
            Names::Original(network) => network.own_prefix()?,
        };
        let stray = |name: &String| {
            name.starts_with(prefix)
                && !used.contains(&name[..])
                && !IDLE.iter().any(|idle| name.ends_with(idle))
        };
        self.files.iter().find_map(|file| {
            let name = file.names().into_iter().find(stray)?;
            Some((file.path().to_owned(), name))
        })
    }

    fn file_of(&self, tensor: &str) -> Option<&Arc<TensorFile>> {
        self.files.iter().find(|file| file.shape(tensor).is_some())
    }

    fn places(&self, name: &str) -> Vec<Place> {
        match &self.names {
            Names::Diffusers => {
                let others = autoencoder::older(name).chain(clip::newer(name));
                std::iter::once(name.to_owned()).chain(others).map(Place::from).collect()
            }
            Names::Original(network) => network.places(name),
        }
    }
}

/// Tensors that stand in checkpoints and take part in no network: of a prior's statistics the bundle has a file.
const IDLE: &[&str] = &["position_ids", "logit_scale", "clip_mean", "clip_std"];

impl Stored {
    /// The shape in which it is wanted.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The name of its tensor in the file.
    pub fn tensor(&self) -> &str {
        &self.place.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The numbers, row-major in [`Stored::shape`].
    pub fn read(&self) -> Vec<f32> {
        let mut values = self.file.values(&self.tensor);
        self.file.release(&self.tensor);
        if let Some((part, parts)) = self.place.part {
            let len = values.len() / parts;
            values = values[part * len..(part + 1) * len].to_vec();
        }
        match (self.place.transposed, self.shape[..].first_chunk()) {
            (true, Some(&[rows, columns])) => {
                (0..rows * columns).map(|at| values[at % columns * rows + at / columns]).collect()
            }
            _ => values,
        }
    }
}

fn without_ones(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|&size| size != 1).collect()
}
