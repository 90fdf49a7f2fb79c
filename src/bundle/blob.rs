//! A blob: a run of bytes that the header names, and the rule that says where in the file it lies.

use std::{fmt, ops::Range};

use blake3::Hash;
use serde::{Deserialize, Serialize};

use super::{BundleError, Component};

/// Sections start at multiples of this, in bytes.
///
/// A page is 4 KiB on most boards, 16 KiB on a Raspberry Pi 5 and 64 KiB with some kernels; a section
/// that starts on a page of its own can be released without touching its neighbours.
pub(super) const SECTION_ALIGN: usize = 64 << 10;

/// Blobs inside a section start at multiples of this, in bytes: one cache line, and every SIMD load.
pub(super) const BLOB_ALIGN: usize = 64;

/// Where a blob lies, and what its bytes hash to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// From the start of the file, in bytes.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
    /// BLAKE3 of the bytes.
    #[serde(with = "hex")]
    pub blake3: Hash,
}

impl Blob {
    /// A blob of `len` bytes that is yet to be written; the writer sets its offset and hash.
    pub fn unwritten(len: u64) -> Self {
        Self { offset: 0, len, blake3: Hash::from_bytes([0; 32]) }
    }

    /// The bytes of a file in memory that this blob takes.
    ///
    /// # Panics
    /// If no memory is that large, which a header that was checked against such a file rules out.
    pub(super) fn range(&self) -> Range<usize> {
        let at = |offset| usize::try_from(offset).expect("a checked blob ends within its file");
        at(self.offset)..at(self.offset + self.len)
    }
}

/// What a blob is, in the words of an error message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BlobName<'a> {
    /// A bundled file.
    File(&'a str),
    /// The graph of a component.
    Graph(Component),
    /// A tensor of a component.
    Tensor(Component, &'a str),
}

impl BlobName<'_> {
    /// Refuses a name that is empty or could upset a terminal, and a file's that is not a plain
    /// relative path.
    pub(super) fn check(self) -> Result<(), BundleError> {
        let fits = match self {
            Self::File(path) => path.split('/').all(is_plain),
            Self::Graph(_) => true,
            Self::Tensor(_, name) => !name.is_empty() && !name.contains(char::is_control),
        };
        if fits { Ok(()) } else { Err(BundleError::Name { name: self.to_string() }) }
    }
}

/// Whether `part` may stand between two slashes of a file's name.
fn is_plain(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control() || c == '\\')
}

impl fmt::Display for BlobName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => write!(f, "file {name:?}"),
            Self::Graph(component) => write!(f, "graph of {component}"),
            Self::Tensor(component, name) => write!(f, "tensor {name:?} of {component}"),
        }
    }
}

/// A blob in the order of the file, with the alignment that it needs there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    pub name: BlobName<'a>,
    /// [`SECTION_ALIGN`] for the first blob of a section, [`BLOB_ALIGN`] for the others.
    pub align: usize,
    pub blob: &'a Blob,
}

/// The slots of one section.
pub(super) fn section<'a>(
    blobs: impl Iterator<Item = (BlobName<'a>, &'a Blob)>,
) -> impl Iterator<Item = Slot<'a>> {
    let aligns = std::iter::once(SECTION_ALIGN).chain(std::iter::repeat(BLOB_ALIGN));
    blobs.zip(aligns).map(|((name, blob), align)| Slot { name, align, blob })
}

/// Where the next blob goes: the alignment rule, for the reader that checks and the writer that obeys.
#[derive(Debug)]
pub(super) struct Cursor {
    end: u64,
}

impl Cursor {
    /// Starts behind the header, at `data_start`.
    pub fn new(data_start: u64) -> Self {
        Self { end: data_start }
    }

    /// The offset of the next blob.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`] if it would end beyond what 64 bits can say.
    pub fn place(&mut self, slot: &Slot<'_>) -> Result<u64, BundleError> {
        let place = || {
            let offset = self.end.checked_next_multiple_of(slot.align as u64)?;
            Some((offset, offset.checked_add(slot.blob.len)?))
        };
        let (offset, end) = place().ok_or_else(|| BundleError::TooLarge { name: slot.name.to_string() })?;
        self.end = end;
        Ok(offset)
    }

    /// Where the last blob ends.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// A hash as 64 hexadecimal digits, so that a header's length does not depend on its hashes.
mod hex {
    use std::borrow::Cow;

    use blake3::Hash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hash.to_hex())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let digits = Cow::<str>::deserialize(deserializer)?;
        Hash::from_hex(digits.as_bytes()).map_err(D::Error::custom)
    }
}
