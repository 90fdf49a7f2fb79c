//! The state folder: what outlives the daemon.
//!
//! ```text
//! journal        what happened to jobs
//! lock           held while a daemon uses the folder
//! images/ID.png  finished pictures
//! latents/ID     the state of a picture after some of its steps
//! speeds.json    measured seconds per step
//! ballast        bytes to give away when the disk is full, so that ends can still be written down
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::record::JobId;
use crate::output::{self, OutputError, Text};
use crate::pipeline::{Halfway, decode_state, encode_state};
use crate::tensor::{Latents, Rgb8};

/// What the ballast weighs: some thousand records.
const BALLAST_BYTES: usize = 1 << 20;

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something in it cannot be made, read or written.
    #[error("the state folder {} cannot be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another daemon uses it.
    #[error("another daemon uses the state folder {}: stop it, or choose another folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
}

/// An open state folder.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the folder if need be, and locks it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        for folder in [root.to_owned(), root.join("images"), root.join("latents")] {
            fs::create_dir_all(&folder).map_err(failed(&folder))?;
        }
        let path = root.join("lock");
        let lock = File::create(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Locked { path: root.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(failed(&path)(source)),
        }
        let store = Self { root: root.to_owned(), _lock: lock };
        store.take_ballast();
        Ok(store)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The file with measured speeds.
    pub fn speeds(&self) -> PathBuf {
        self.root.join("speeds.json")
    }

    /// The file of a job's picture.
    pub fn image(&self, id: &str) -> PathBuf {
        self.root.join("images").join(format!("{id}.png"))
    }

    fn latents(&self, id: &str) -> PathBuf {
        self.root.join("latents").join(id)
    }

    /// Writes a picture; its SHA-256 and length. When this returns, it is on disk under its name.
    ///
    /// # Errors
    /// [`OutputError`]; there is then no file of that name.
    pub fn save_image(&self, id: &str, picture: &Rgb8, texts: &[Text]) -> Result<(String, u64), OutputError> {
        let path = self.image(id);
        // It may be there whole, and only its name not be sure to last.
        let sha256 = output::write_png(&path, picture, texts).inspect_err(|_| remove(&path))?;
        let bytes = fs::metadata(&path).map(|file| file.len());
        Ok((sha256, bytes.map_err(|source| OutputError::Write { path, source })?))
    }

    /// Keeps the state of a picture, so that it can be gone on with.
    ///
    /// # Errors
    /// [`OutputError`]; the state that was kept before is then still there.
    pub fn save_latents(
        &self,
        id: &str,
        done: usize,
        latents: &Latents,
        memory: &[f32],
    ) -> Result<(), OutputError> {
        let bytes = encode_state(id, done, latents, memory);
        output::write_atomically(&self.latents(id), &bytes)
    }

    /// The state that was kept, if there is one and it is whole.
    pub fn load_latents(&self, id: &str) -> Option<Halfway> {
        let bytes = fs::read(self.latents(id)).ok()?;
        let state = decode_state(&bytes).filter(|state| state.identity == id);
        if state.is_none() {
            log::warn!("the saved state of job {id} is damaged: it begins anew");
        }
        state.map(|state| state.halfway)
    }

    /// Forgets the state of a picture that is finished.
    pub fn drop_latents(&self, id: &str) {
        remove(&self.latents(id));
    }

    /// Deletes a picture.
    pub fn drop_image(&self, id: &str) {
        remove(&self.image(id));
    }

    /// Deletes what no job has a use for: pictures that are not `kept`, states of jobs that are not `unfinished`, and
    /// what a crash left half-written.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a folder cannot be read.
    pub fn clean(&self, kept: &BTreeSet<JobId>, unfinished: &BTreeSet<JobId>) -> Result<(), StoreError> {
        for (folder, wanted, suffix) in [("images", kept, ".png"), ("latents", unfinished, "")] {
            let folder = self.root.join(folder);
            let failed = |source| StoreError::Io { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !name.strip_suffix(suffix).is_some_and(|id| wanted.contains(id)) {
                    remove(&path);
                }
            }
        }
        Ok(())
    }

    /// Gives the ballast away; whether there was any.
    pub fn give_ballast(&self) -> bool {
        fs::remove_file(self.root.join("ballast")).is_ok()
    }

    /// Takes ballast on again, if there is room.
    pub fn take_ballast(&self) {
        let path = self.root.join("ballast");
        if !path.exists() && output::write_atomically(&path, &vec![0x55; BALLAST_BYTES]).is_err() {
            log::warn!("there is no room for the ballast in {}", self.root.display());
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("cannot delete {}: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        (folder, store)
    }

    #[test]
    fn latents_come_back_as_they_were_or_not_at_all() {
        let (_folder, store) = store();
        let latents = Latents::new((0..24u8).map(f32::from).collect(), 4, 2, 3).unwrap();
        store.save_latents("a", 5, &latents, &[0.5; 48]).unwrap();
        let halfway = store.load_latents("a").unwrap();
        assert_eq!((halfway.done, &halfway.latents, &halfway.memory[..]), (5, &latents, &[0.5; 48][..]));
        let path = store.latents("a");
        fs::copy(&path, store.latents("b")).unwrap();
        assert!(store.load_latents("b").is_none(), "it is the state of another job");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(store.load_latents("a").is_none());
    }

    #[test]
    fn cleaning_leaves_what_jobs_need() {
        let (_folder, store) = store();
        for name in
            ["images/a.png", "images/b.png", "images/.tmpX", "latents/c", "latents/d", "latents/.tmpY"]
        {
            fs::write(store.root.join(name), "x").unwrap();
        }
        let of = |id: &str| BTreeSet::from([JobId::from(id)]);
        store.clean(&of("a"), &of("c")).unwrap();
        let left = |folder: &str| -> Vec<_> {
            fs::read_dir(store.root.join(folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(left("images"), ["a.png"]);
        assert_eq!(left("latents"), ["c"]);
    }

    #[test]
    fn a_folder_has_one_daemon() {
        let (folder, store) = store();
        let path = folder.path().join("state");
        assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
        drop(store);
        assert!(Store::open(&path).is_ok());
    }

    #[test]
    fn ballast_can_be_given_away_once() {
        let (_folder, store) = store();
        assert!(store.give_ballast());
        assert!(!store.give_ballast());
        store.take_ballast();
        assert!(store.give_ballast());
    }
}
