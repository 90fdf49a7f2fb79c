//! What can be wrong with a bundle.

use std::{io, path::PathBuf};

use super::{Dtype, Layout};
use crate::map::MapError;

/// Why a bundle cannot be used. Each variant names the place, and both numbers where there are two.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Opening failed; the source says why.
    #[error("cannot use the model file {}", path.display())]
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<BundleError>,
    },

    /// The file cannot be opened or mapped.
    #[error("cannot be read")]
    Read(#[source] io::Error),

    /// A folder, pipe or device.
    #[error("not a regular file: name the .tintype file itself")]
    NotRegular,

    /// The model that it needs beside it cannot be used.
    #[error("needs {}, the model that it was made for, which cannot be used: put it there", path.display())]
    Base {
        /// Where that is to be.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<BundleError>,
    },

    /// The model that is beside it is not the one that it was made for.
    #[error("was made for {} of hash {expected}, but the one there has {got}: install both of one version", path.display())]
    BaseHash {
        /// The file beside it.
        path: PathBuf,
        /// The model's hash in the header.
        expected: String,
        /// That of the file.
        got: String,
    },

    /// The model that it needs needs another one itself.
    #[error("needs {}, which needs another model itself: import it again for a model that is whole", path.display())]
    BaseOfBase {
        /// The file beside it.
        path: PathBuf,
    },

    /// The magic bytes are missing.
    #[error("not a tintype file: make one from the model's folder with `tintype import`")]
    NotABundle,

    /// Written by a later or broken writer.
    #[error("is of version {got}, not {expected}: import the model again, or update tintype")]
    Version {
        /// The version that is read.
        expected: u32,
        /// The version in the file.
        got: u32,
    },

    /// A flag is set that version 1 does not define.
    #[error("flags are {got:#010x}, not 0: import the model again, or update tintype")]
    Flags {
        /// The flags in the file.
        got: u32,
    },

    /// The header does not fill whole sections, or is longer than any header may be.
    #[error(
        "header is {got} bytes, not a multiple of 65536 less 56 that is at most {max}: copy the file again"
    )]
    HeaderLen {
        /// The longest header.
        max: u64,
        /// The length in the preamble.
        got: u64,
    },

    /// The file ends before what the header promises.
    #[error("is truncated: {expected} bytes are promised, {got} are there: copy the file again")]
    Truncated {
        /// The length that the header implies, in bytes.
        expected: u64,
        /// The length of the file, in bytes.
        got: u64,
    },

    /// The file goes on behind its last blob.
    #[error("is {got} bytes long, but its last blob ends at {expected}: copy the file again")]
    TrailingBytes {
        /// Where the last blob ends.
        expected: u64,
        /// The length of the file, in bytes.
        got: u64,
    },

    /// The header is not the one that was written.
    #[error("header is damaged: its BLAKE3 is {got}, not {expected}: copy the file again")]
    HeaderHash {
        /// The hash in the preamble.
        expected: blake3::Hash,
        /// The hash of the header.
        got: blake3::Hash,
    },

    /// The header is not JSON, or not of the structure that version 1 has.
    #[error("header is not that of a version 1 bundle")]
    Json(#[source] serde_json::Error),

    /// A number of the pipeline cannot be.
    #[error("pipeline: {field} is {got}, not {expected}")]
    Pipeline {
        /// The field of the header.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },

    /// A word of a closed vocabulary that this reader does not know.
    #[error("{name}: {field} {got:?} is unknown: update tintype, or import the model again")]
    Unknown {
        /// What it is said of.
        name: String,
        /// The field of the header.
        field: &'static str,
        /// The word.
        got: String,
    },

    /// A name that is empty, holds control characters, or would lead out of a folder.
    #[error("{name}: not a name that may be used")]
    Name {
        /// The blob, with its name.
        name: String,
    },

    /// Two blobs of one name.
    #[error("{name}: listed twice")]
    Duplicate {
        /// The blob, with its name.
        name: String,
    },

    /// A tensor has no dimensions, or too many.
    #[error("{name}: {got} dimensions, not 1 to {max}")]
    Rank {
        /// The tensor.
        name: String,
        /// The most dimensions there may be.
        max: usize,
        /// How many it has.
        got: usize,
    },

    /// A dimension of a tensor is 0.
    #[error("{name}: dimension {axis} is 0")]
    EmptyDimension {
        /// The tensor.
        name: String,
        /// Which dimension, from 0.
        axis: usize,
    },

    /// A layout for matrices on a tensor of one dimension.
    #[error("{name}: layout {layout} needs at least 2 dimensions")]
    NotAMatrix {
        /// The tensor.
        name: String,
        /// Its layout.
        layout: Layout,
    },

    /// Integers without scales.
    #[error("{name}: dtype i8 needs scales")]
    ScalesMissing {
        /// The tensor.
        name: String,
    },

    /// Scales on what is not integers.
    #[error("{name}: dtype {dtype} takes no scales")]
    ScalesUnexpected {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },

    /// A size that this machine cannot count.
    #[error("{name}: too large for this machine to address")]
    TooLarge {
        /// The blob.
        name: String,
    },

    /// A length that does not follow from dtype, layout, scales and shape.
    #[error("{name}: {got} bytes long, where its shape takes {expected}")]
    TensorLen {
        /// The tensor.
        name: String,
        /// The length that the shape takes, in bytes.
        expected: u64,
        /// The length in the header.
        got: u64,
    },

    /// A blob that overlaps another, leaves a gap or is not aligned.
    #[error("{name}: at offset {got}, not {expected}")]
    Offset {
        /// The blob.
        name: String,
        /// Where the alignment rule puts it.
        expected: u64,
        /// The offset in the header.
        got: u64,
    },

    /// Bytes between two blobs that are not zero. Found by `verify`.
    #[error("padding at offset {offset} is {got:#04x}, not 0: copy the file again")]
    Padding {
        /// From the start of the file, in bytes.
        offset: usize,
        /// The first byte that is not 0.
        got: u8,
    },

    /// A blob that is not the one that was written. Found by `verify`.
    #[error("{name}: damaged: its BLAKE3 is {got}, not {expected}: copy the file again")]
    BlobHash {
        /// The blob.
        name: String,
        /// The hash in the header.
        expected: blake3::Hash,
        /// The hash of the bytes.
        got: blake3::Hash,
    },

    /// A scale that is infinite or not a number. Found by `verify`.
    #[error("{name}: scale {index} is {got}: import the model again")]
    Scale {
        /// The tensor.
        name: String,
        /// Which scale, from 0, in the order of the file.
        index: usize,
        /// Its value.
        got: f32,
    },
}

impl From<MapError> for BundleError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Read(source) => Self::Read(source),
            MapError::NotRegular => Self::NotRegular,
        }
    }
}
