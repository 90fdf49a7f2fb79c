//! Weights as others publish them: a file in the format `safetensors`, mapped and read one tensor at a time.
//!
//! The header is at most 100 MB of JSON; tensors follow it one behind the other and fill the file to its end, which is
//! checked when it is opened. Source: the format's description, <https://huggingface.co/docs/safetensors>.

use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::map::{self, Map, MapError};

/// The length of a header's length, in bytes.
const LEN_BYTES: usize = 8;
/// How Python's pickles start: alone, and in the archive that torch puts them into.
const PICKLES: [&[u8]; 2] = [b"\x80", b"PK\x03\x04"];

/// Why a file of tensors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// It cannot be mapped.
    #[error("cannot use {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MapError,
    },
    /// A pickle, which is a program.
    #[error(
        "{} is a pickle, which is a program that runs when it is read: convert it to safetensors",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// The header is not one, or does not fit the file.
    #[error("{} is no whole safetensors file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Numbers of a type that no weight has.
    #[error("tensor `{name}` of {} is of type {got}, expected F32, F16 or BF16", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        got: String,
    },
}

/// A file of tensors.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Map,
    data_start: usize,
    metadata: Metadata,
}

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Float {
    F32,
    F16,
    Bf16,
}

/// One tensor: where it lies in its file, and in which shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The dimensions, outermost first.
    pub shape: Vec<usize>,
    float: Float,
    bytes: Range<usize>,
}

impl TensorFile {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    /// - [`TensorFileError::Map`] if it cannot be mapped.
    /// - [`TensorFileError::Pickle`] for a `.ckpt`, `.bin` or `.pt` of torch.
    /// - [`TensorFileError::Malformed`] if the header is damaged, or tensors overlap, leave gaps or end elsewhere than the
    ///   file.
    pub fn open(path: &Path) -> Result<Self, TensorFileError> {
        let path = path.to_owned();
        let map = match map::map(&path) {
            Ok(map) => map,
            Err(source) => return Err(TensorFileError::Map { path, source }),
        };
        match SafeTensors::read_metadata(&map) {
            Ok((header, metadata)) => Ok(Self { path, map, data_start: LEN_BYTES + header, metadata }),
            Err(_) if PICKLES.iter().any(|start| map.starts_with(start)) => {
                Err(TensorFileError::Pickle { path })
            }
            Err(error) => Err(TensorFileError::Malformed { path, reason: reason(&error) }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// What the file says of itself under a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The names of its tensors, in the order in which they lie.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The shape of the tensor `name`, whatever its type, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| &info.shape[..])
    }

    /// The tensor `name`, if there is one.
    ///
    /// # Errors
    /// [`TensorFileError::Dtype`] if it does not hold floats of 16 or 32 bits.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, TensorFileError> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        let float = match info.dtype {
            Dtype::F32 => Float::F32,
            Dtype::F16 => Float::F16,
            Dtype::BF16 => Float::Bf16,
            other => {
                let (path, name, got) = (self.path.clone(), name.to_owned(), format!("{other:?}"));
                return Err(TensorFileError::Dtype { path, name, got });
            }
        };
        let (start, end) = info.data_offsets;
        let bytes = self.data_start + start..self.data_start + end;
        Ok(Some(Tensor { shape: info.shape.clone(), float, bytes }))
    }

    /// The one number of a tensor of 64-bit integers, if there is such a tensor.
    pub fn integer(&self, name: &str) -> Option<i64> {
        let info = self.metadata.info(name).filter(|info| info.dtype == Dtype::I64)?;
        let bytes = self.map.get(self.data_start + info.data_offsets.0..)?.first_chunk()?;
        (info.shape.iter().product::<usize>() == 1).then(|| i64::from_le_bytes(*bytes))
    }

    /// The numbers of a tensor of this file, row-major.
    pub fn values(&self, tensor: &Tensor) -> Vec<f32> {
        let bytes = &self.map[tensor.bytes.clone()];
        let halves = || bytes.as_chunks().0.iter();
        match tensor.float {
            Float::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Float::F16 => halves().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Float::Bf16 => halves().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        }
    }

    /// Gives a tensor's pages back to the system, when nobody will read it soon.
    pub fn release(&self, tensor: &Tensor) {
        map::release(&self.map, tensor.bytes.clone());
    }

    /// Writes the numbers at `places` of a tensor of this file to `out`, as many as there are of both.
    ///
    /// # Panics
    /// If it has no such number.
    pub fn gather<'a>(
        &self,
        tensor: &Tensor,
        places: impl Iterator<Item = usize>,
        out: impl Iterator<Item = &'a mut f32>,
    ) {
        let bytes = &self.map[tensor.bytes.clone()];
        let pairs = places.zip(out);
        match tensor.float {
            Float::F32 => pairs.for_each(|(at, x)| *x = f32::from_le_bytes(bytes.as_chunks().0[at])),
            Float::F16 => pairs.for_each(|(at, x)| *x = f16::from_le_bytes(bytes.as_chunks().0[at]).into()),
            Float::Bf16 => pairs.for_each(|(at, x)| *x = bf16::from_le_bytes(bytes.as_chunks().0[at]).into()),
        }
    }
}

fn reason(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::HeaderTooSmall => "it has fewer than 8 bytes".into(),
        SafeTensorError::HeaderTooLarge => "its header claims more than the 100 MB that one may have".into(),
        SafeTensorError::InvalidHeaderLength => {
            "its header claims to be longer than the file: copy it again".into()
        }
        SafeTensorError::InvalidHeader(error) => format!("its header is no text ({error})"),
        SafeTensorError::InvalidHeaderDeserialization(error) => {
            format!("its header is no table of tensors ({error})")
        }
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor `{name}` does not begin where the one before it ends")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "its tensors end elsewhere than the file: copy it again".into()
        }
        SafeTensorError::TensorInvalidInfo | SafeTensorError::MisalignedSlice => {
            "a tensor's length is not that of its shape".into()
        }
        SafeTensorError::ValidationOverflow => "a tensor's shape is larger than any memory".into(),
        other => other.to_string(),
    }
}
