//! The one place where a file is mapped.
#![allow(unsafe_code)]

use std::{fs::OpenOptions, io, ops::Range, os::unix::fs::OpenOptionsExt, path::Path};

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

/// A file's bytes, in place.
pub type Map = Mmap;

/// Why a file was not mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// It cannot be opened or mapped.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// A folder, pipe or device.
    #[error("not a regular file")]
    NotRegular,
}

/// Maps the regular file at `path`, read-only and at the length that it has now.
///
/// # Errors
/// - [`MapError::Read`] if it cannot be opened or mapped.
/// - [`MapError::NotRegular`] if it is something else than a regular file, or a link to one.
pub fn map(path: &Path) -> Result<Map, MapError> {
    // O_NONBLOCK: a pipe without a writer is then opened and refused, where it would block for ever.
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(MapError::Read)?;
    let metadata = file.metadata().map_err(MapError::Read)?;
    if !metadata.is_file() {
        return Err(MapError::NotRegular);
    }
    let too_large = |_| MapError::Read(io::ErrorKind::FileTooLarge.into());
    let len = usize::try_from(metadata.len()).map_err(too_large)?;
    // SAFETY: the map is as long as the file, which the contract of every caller (`docs/format.md`, "Use")
    // leaves unchanged while it is mapped: models are installed by rename, which keeps the old file
    // alive, and are written nowhere in place. Whoever truncates one regardless raises SIGBUS here.
    unsafe { MmapOptions::new().len(len).map(&file) }.map_err(MapError::Read)
}

/// Gives the pages of a range back to the system. They stay in its cache while it has room for them, and come back
/// when they are read again.
pub fn release(map: &Map, range: Range<usize>) {
    // SAFETY: the pages of a file that is mapped read-only hold nothing that the file does not hold: a reference into
    // them stays valid and reads the same bytes.
    let released = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    if let Err(error) = released {
        log::debug!("pages were not given back: {error}");
    }
}

/// Says that a range will be read soon, so that the system reads what it does not have while other work goes on.
pub fn expect(map: &Map, range: Range<usize>) {
    if let Err(error) = map.advise_range(Advice::WillNeed, range.start, range.len()) {
        log::debug!("pages were not asked for: {error}");
    }
}
