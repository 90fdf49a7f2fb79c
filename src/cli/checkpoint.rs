//! The state of an unfinished picture in a file, from which the same command goes on after a power cut.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::CliError;
use crate::output;
use crate::pipeline::{Halfway, Manifest, State, Step, decode_state, encode_state};

/// A file that is kept up to date with a run.
pub struct Checkpoint {
    path: PathBuf,
    identity: String,
    /// States can be gone on from behind multiples of so many steps.
    every: usize,
    has_failed: bool,
}

/// A state that was kept.
pub struct Kept {
    path: PathBuf,
    manifest: Manifest,
    halfway: Halfway,
}

impl Kept {
    /// The state in the file; `None` if there is no file.
    ///
    /// # Errors
    /// [`CliError::Read`]; [`CliError::Checkpoint`] if it is damaged, or of something else than a picture.
    pub fn read(path: &Path) -> Result<Option<Self>, CliError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CliError::Read { path: path.to_owned(), source }),
        };
        let damaged = |reason: &str| CliError::Checkpoint {
            path: path.to_owned(),
            reason: format!("{reason}: delete it to begin anew, or name another file"),
            foreign: false,
        };
        let State { identity, halfway } =
            decode_state(&bytes).ok_or_else(|| damaged("it is damaged, or no state of a picture"))?;
        let manifest = Manifest::read(&identity).map_err(|error| damaged(&error.to_string()))?;
        Ok(Some(Self { path: path.to_owned(), manifest, halfway }))
    }

    /// The seed of the picture.
    pub fn seed(&self) -> u64 {
        self.manifest.seed
    }

    /// The state, if it is one of this picture.
    ///
    /// # Errors
    /// [`CliError::Checkpoint`], naming what is different.
    pub fn of(self, wanted: &Manifest) -> Result<Halfway, CliError> {
        if self.manifest == *wanted {
            return Ok(self.halfway);
        }
        let [kept, wanted] = [&self.manifest, wanted].map(|m| serde_json::to_value(m).unwrap_or_default());
        let shown = |value: &Value, key: &str| value.get(key).map_or_else(|| "none".into(), Value::to_string);
        let keys = [&kept, &wanted].into_iter().filter_map(Value::as_object).flat_map(|object| object.keys());
        let differing = keys.filter(|key| kept.get(*key) != wanted.get(*key)).map(|key| {
            let name = key.replace('_', " ");
            format!("{name} is {} there and {} here", shown(&kept, key), shown(&wanted, key))
        });
        let differing = differing.into_iter().next().unwrap_or_default();
        let reason = format!(
            "this is the state of another picture ({differing}): name another file, or delete it to begin anew"
        );
        Err(CliError::Checkpoint { path: self.path, reason, foreign: true })
    }
}

impl Checkpoint {
    /// A file for the state of this picture.
    pub fn new(path: &Path, picture: &Manifest) -> Self {
        Self {
            path: path.to_owned(),
            identity: picture.to_json(),
            every: picture.feature_cache,
            has_failed: false,
        }
    }

    /// Keeps the state after a step, if it can be gone on from. A run goes on without it if it cannot be kept, and says so once.
    pub fn save(&mut self, step: &Step) {
        if !step.done.is_multiple_of(self.every) {
            return;
        }
        let bytes = encode_state(&self.identity, step.done, step.latents, step.memory);
        match output::write_atomically(&self.path, &bytes) {
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                log::warn!("the state of the picture is not kept: {}", crate::error::chain(&error));
            }
            _ => {}
        }
    }

    /// Forgets the state: the picture is finished.
    pub fn finish(self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot delete {}: {error}", self.path.display());
            }
            _ => {}
        }
    }
}
