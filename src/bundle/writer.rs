//! Writes a bundle, one blob at a time.
//!
//! ```text
//! place every blob by the alignment rule; pad the header; let the reader check it
//! make a temporary file beside the target, as long as the bundle will be
//! for each blob, in the order of the header: write it at its offset, keep its hash
//! put the hashes into the header, which does not change its length, and write it at the start
//! flush to disk, rename onto the target, flush the folder
//! ```
//!
//! So memory holds one tensor at a time, a header never promises what its reader would refuse, and the
//! target is at every moment either what it was or the whole new bundle.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{
    BLOB_ALIGN, BlobName, BundleError, Component, Dtype, Extents, Header, PREAMBLE_LEN, SECTION_ALIGN,
    Values, blob::Cursor, cast, preamble,
};

/// Why a bundle was not written. The target is as it was.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The reader would refuse this header.
    #[error("the header is not one that can be read back")]
    Header(#[from] BundleError),

    /// Blobs are written in the order of the header, each of them once.
    #[error("{got} was written where {expected} was due")]
    Order {
        /// The blob that the header has next.
        expected: String,
        /// The blob that came.
        got: String,
    },

    /// The writer was finished too early.
    #[error("{name} was not written")]
    Missing {
        /// The blob that the header has next.
        name: String,
    },

    /// Numbers of another kind than the header says.
    #[error("{name}: {got} values, not {expected}")]
    Dtype {
        /// The tensor.
        name: String,
        /// What the header says.
        expected: Dtype,
        /// What came.
        got: Dtype,
    },

    /// More or fewer of something than the header says.
    #[error("{name}: {got} {unit}, not {expected}")]
    Count {
        /// The blob.
        name: String,
        /// What is counted.
        unit: &'static str,
        /// What the header says.
        expected: u64,
        /// What came.
        got: u64,
    },

    /// The disk is full, or a quota used up.
    #[error("no space for {}, which takes {needed} bytes: free some or use another folder", path.display())]
    DiskFull {
        /// The target.
        path: PathBuf,
        /// The length of the bundle.
        needed: u64,
    },

    /// Writing failed otherwise.
    #[error("cannot write {}", path.display())]
    Write {
        /// The target.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A bundle that is being written, to a temporary file that goes when this is dropped.
#[derive(Debug)]
pub struct BundleWriter {
    path: PathBuf,
    file: NamedTempFile,
    header: Header,
    /// Names and offsets of all blobs, in the order of the file.
    plan: Vec<(String, u64)>,
    /// Of the blobs that have been written.
    hashes: Vec<blake3::Hash>,
    data_start: usize,
    len: u64,
}

impl BundleWriter {
    /// Starts a bundle that will be at `path`. Offsets and hashes in `header` are ignored.
    ///
    /// # Errors
    /// - [`WriteError::Header`] if a reader would refuse `header`.
    /// - [`WriteError::DiskFull`], [`WriteError::Write`] if the folder cannot be written to.
    pub fn create(path: &Path, mut header: Header) -> Result<Self, WriteError> {
        let (data_start, len) = place(&mut header)?;
        let region = region(&header, data_start);
        let (_, json) = preamble::split(&region)?;
        Header::from_json(json, len)?;

        let plan = header.slots().map(|slot| (slot.name.to_string(), slot.blob.offset)).collect();
        let file = temporary_file(path, len).map_err(|source| failed(path, len, source))?;
        Ok(Self { path: path.to_owned(), file, header, plan, hashes: Vec::new(), data_start, len })
    }

    /// Writes a bundled file.
    ///
    /// # Errors
    /// - [`WriteError::Order`], [`WriteError::Count`] if the header has something else next.
    /// - [`WriteError::DiskFull`], [`WriteError::Write`].
    pub fn write_file(&mut self, name: &str, contents: &[u8]) -> Result<(), WriteError> {
        let len = self.header.files.iter().find(|file| file.name == name).map(|file| file.blob.len);
        self.write_bytes(BlobName::File(name), len, contents)
    }

    /// Writes the graph of a component.
    ///
    /// # Errors
    /// As [`Self::write_file`].
    pub fn write_graph(&mut self, component: Component, graph: &[u8]) -> Result<(), WriteError> {
        let len = self.header.component(component).map(|component| component.graph.len);
        self.write_bytes(BlobName::Graph(component), len, graph)
    }

    /// Writes a tensor of a component; `values` in the order of its layout, padding included.
    ///
    /// # Errors
    /// - [`WriteError::Order`], [`WriteError::Dtype`], [`WriteError::Count`] if the header has something
    ///   else next.
    /// - [`WriteError::DiskFull`], [`WriteError::Write`].
    pub fn write_tensor(
        &mut self,
        component: Component,
        name: &str,
        values: Values<'_>,
    ) -> Result<(), WriteError> {
        let blob_name = BlobName::Tensor(component, name);
        let entry = self.header.component(component).and_then(|component| component.tensor(name));
        let Some(entry) = entry else { return Err(self.out_of_order(blob_name)) };
        if values.dtype() != entry.dtype() {
            let (expected, got) = (entry.dtype(), values.dtype());
            return Err(WriteError::Dtype { name: blob_name.to_string(), expected, got });
        }
        let Extents { values: count, scales_offset, scales: scale_count, .. } = entry.extents();
        let (bytes, scales) = values.parts();
        check_count(blob_name, "values", count as u64, bytes.len() / entry.dtype().len_bytes())?;
        check_count(blob_name, "scales", scale_count as u64, scales.len())?;
        let padding = &[0; BLOB_ALIGN][..scales_offset - bytes.len()];
        self.write_parts(blob_name, &[bytes, padding, cast::bytes(scales)])
    }

    /// Completes the header and installs the bundle at its path.
    ///
    /// # Errors
    /// - [`WriteError::Missing`] if a blob was not written.
    /// - [`WriteError::DiskFull`], [`WriteError::Write`].
    pub fn finish(mut self) -> Result<(), WriteError> {
        if let Some((name, _)) = self.plan.get(self.hashes.len()) {
            return Err(WriteError::Missing { name: name.clone() });
        }
        for (blob, hash) in self.header.blobs_mut().zip(&self.hashes) {
            blob.blake3 = *hash;
        }
        let region = region(&self.header, self.data_start);
        install(self.file, &region, &self.path).map_err(|source| failed(&self.path, self.len, source))
    }

    fn write_bytes(&mut self, name: BlobName<'_>, len: Option<u64>, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(len) = len else { return Err(self.out_of_order(name)) };
        check_count(name, "bytes", len, bytes.len())?;
        self.write_parts(name, &[bytes])
    }

    /// Writes the blob that is `parts` one after another, if it is the next.
    fn write_parts(&mut self, name: BlobName<'_>, parts: &[&[u8]]) -> Result<(), WriteError> {
        let mut offset = match self.plan.get(self.hashes.len()) {
            Some((due, offset)) if *due == name.to_string() => *offset,
            _ => return Err(self.out_of_order(name)),
        };
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            self.file
                .as_file()
                .write_all_at(part, offset)
                .map_err(|source| failed(&self.path, self.len, source))?;
            hasher.update(part);
            offset += part.len() as u64;
        }
        self.hashes.push(hasher.finalize());
        Ok(())
    }

    fn out_of_order(&self, got: BlobName<'_>) -> WriteError {
        let due = self.plan.get(self.hashes.len());
        let expected = due.map_or_else(|| "nothing more".to_owned(), |(name, _)| name.clone());
        WriteError::Order { expected, got: got.to_string() }
    }
}

/// Sets the offset of every blob. Returns where the data starts and where the file ends.
///
/// Offsets are part of the header, and its length moves them: the loop ends because both only grow.
fn place(header: &mut Header) -> Result<(usize, u64), BundleError> {
    let mut data_start = SECTION_ALIGN;
    loop {
        let mut cursor = Cursor::new(data_start as u64);
        let offsets = header.slots().map(|slot| cursor.place(&slot)).collect::<Result<Vec<_>, _>>()?;
        for (blob, offset) in header.blobs_mut().zip(offsets) {
            blob.offset = offset;
        }
        let needed = PREAMBLE_LEN + json(header).len();
        if needed <= data_start {
            return Ok((data_start, cursor.end()));
        }
        data_start = needed.next_multiple_of(SECTION_ALIGN);
    }
}

/// Preamble and header, padded with spaces to `data_start`.
fn region(header: &Header, data_start: usize) -> Vec<u8> {
    let mut json = json(header);
    json.resize(data_start - PREAMBLE_LEN, b' ');
    let mut region = preamble::encode(&json);
    region.append(&mut json);
    region
}

fn json(header: &Header) -> Vec<u8> {
    serde_json::to_vec(header).expect("a header has no maps but those of JSON itself")
}

/// A file of `len` zeros beside `path`, readable by all.
fn temporary_file(path: &Path, len: u64) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(".tintype-")
        .suffix(".partial")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder(path))?;
    file.as_file().set_len(len)?;
    Ok(file)
}

/// Writes `region` at the start of `file`, and moves that onto `path` once all of it is on disk.
fn install(file: NamedTempFile, region: &[u8], path: &Path) -> io::Result<()> {
    file.as_file().write_all_at(region, 0)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_count(name: BlobName<'_>, unit: &'static str, expected: u64, got: usize) -> Result<(), WriteError> {
    let got = got as u64;
    if expected == got {
        Ok(())
    } else {
        Err(WriteError::Count { name: name.to_string(), unit, expected, got })
    }
}

fn failed(path: &Path, needed: u64, source: io::Error) -> WriteError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::DiskFull { path, needed },
        _ => WriteError::Write { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_what_it_takes() {
        for code in [libc::ENOSPC, libc::EDQUOT] {
            let error = failed(Path::new("a.tintype"), 327_692, io::Error::from_raw_os_error(code));
            assert_eq!(
                error.to_string(),
                "no space for a.tintype, which takes 327692 bytes: free some or use another folder"
            );
        }
        let error = failed(Path::new("a.tintype"), 1, io::Error::from_raw_os_error(libc::EROFS));
        assert_eq!(error.to_string(), "cannot write a.tintype");
    }
}
