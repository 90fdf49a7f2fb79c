//! An append-only file of records: what has been written and flushed is there after a power cut.
//!
//! ```text
//! magic                      8 bytes
//! record, one after another  length u32 | first 8 bytes of the payload's BLAKE3 | payload, JSON
//! ```
//! A record that a power cut tore is at the end, and is dropped when the file is opened. If more than a torn record has
//! to be dropped, the bytes are first kept beside the journal, for a person to look at.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: &[u8; 8] = b"TTJRNL\x00\x01";
/// Length and checksum before a payload.
const HEAD_LEN: usize = 12;
/// The longest payload: a request has at most 64 KiB.
const PAYLOAD_MAX: usize = 1 << 20;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("the journal {} cannot be used", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no journal, or one of a newer version: move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Journal {
    /// Opens or makes the journal at `path` and reads its records, oldest first.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open<R: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<R>), JournalError> {
        let failed = |source| JournalError::Io { path: path.to_owned(), source };
        let options = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options
        };
        let mut file = options().open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            file.write_all_at(MAGIC, 0).and_then(|()| file.sync_all()).map_err(failed)?;
            sync_folder(path).map_err(failed)?;
            bytes = MAGIC.to_vec();
        }
        if !bytes.starts_with(MAGIC) {
            return Err(JournalError::Foreign { path: path.to_owned() });
        }
        let (records, good) = parse(&bytes);
        if good < bytes.len() {
            log::warn!(
                "{}: {} bytes of an unfinished record are dropped",
                path.display(),
                bytes.len() - good
            );
            keep_damaged(path, &bytes[good..]).map_err(failed)?;
            file.set_len(good as u64).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Ok((Self { path: path.to_owned(), file, len: good as u64 }, records))
    }

    /// Adds a record; when this returns, it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal is then as it was.
    pub fn append(&mut self, record: &impl Serialize) -> Result<(), JournalError> {
        self.write(record, true)
    }

    /// Adds a record that a crash of the program does not lose, but a power cut may.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal is then as it was.
    pub fn note(&mut self, record: &impl Serialize) -> Result<(), JournalError> {
        self.write(record, false)
    }

    fn write(&mut self, record: &impl Serialize, sync: bool) -> Result<(), JournalError> {
        let bytes = encoded(record);
        let written = self.file.write_all_at(&bytes, self.len);
        if let Err(source) = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) }) {
            // What is left of the record would be dropped at the next start anyway.
            let _ = self.file.set_len(self.len);
            return Err(JournalError::Io { path: self.path.clone(), source });
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Replaces the journal by one of these records alone; it is the old one or the new one at every moment.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal is then as it was.
    pub fn rewrite<'a, R: Serialize + 'a>(
        &mut self,
        records: impl IntoIterator<Item = &'a R>,
    ) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut bytes = MAGIC.to_vec();
        records.into_iter().for_each(|record| bytes.extend(encoded(record)));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        let file = file.persist(&self.path).map_err(|error| failed(error.error))?;
        sync_folder(&self.path).map_err(failed)?;
        self.file = file;
        self.len = bytes.len() as u64;
        Ok(())
    }

    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len
    }
}

/// All records up to the first that is torn or damaged, and where that one starts.
fn parse<R: DeserializeOwned>(bytes: &[u8]) -> (Vec<R>, usize) {
    let (mut records, mut at) = (Vec::new(), MAGIC.len());
    while let Some((record, len)) = decoded(&bytes[at..]) {
        records.push(record);
        at += len;
    }
    (records, at)
}

fn encoded(record: &impl Serialize) -> Vec<u8> {
    let payload = serde_json::to_vec(record).expect("records have string keys");
    let mut bytes = Vec::with_capacity(HEAD_LEN + payload.len());
    bytes.extend(u32::try_from(payload.len()).expect("a record is small").to_le_bytes());
    bytes.extend(&blake3::hash(&payload).as_bytes()[..8]);
    bytes.extend(payload);
    bytes
}

/// The record at the start of `bytes` and its length; `None` if it is not whole.
fn decoded<R: DeserializeOwned>(bytes: &[u8]) -> Option<(R, usize)> {
    let len = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    let payload = bytes.get(HEAD_LEN..HEAD_LEN + len).filter(|_| (1..=PAYLOAD_MAX).contains(&len))?;
    let whole = blake3::hash(payload).as_bytes()[..8] == bytes[4..HEAD_LEN];
    let record = whole.then(|| serde_json::from_slice(payload).ok())??;
    Some((record, HEAD_LEN + len))
}

/// Bytes that are longer than one torn record may hold records that somebody wants back.
fn keep_damaged(path: &Path, tail: &[u8]) -> io::Result<()> {
    let announced = tail.first_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
    if tail.len() <= HEAD_LEN + announced.min(PAYLOAD_MAX) {
        return Ok(());
    }
    let kept = path.with_extension("damaged");
    log::warn!("more than one record is damaged: the bytes are kept in {}", kept.display());
    std::fs::write(kept, tail)
}

/// Makes a name in a folder last.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
