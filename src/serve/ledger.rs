//! The journal with the files that belong to it: whoever holds it may change what becomes of jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::journal::{Journal, JournalError};
use super::record::{Accepted, JobId, Outcome, Record, Replayed, condensed, replay};
use super::store::{Store, StoreError};
use crate::protocol::{ErrorCode, ErrorDetail};

/// The journal is written anew when it has grown beyond this, and to twice what it was after the last time.
const CONDENSE_BYTES: u64 = 4 << 20;

/// The journal and the state folder.
#[derive(Debug)]
pub struct Ledger {
    journal: Journal,
    store: Arc<Store>,
    condensed_bytes: u64,
}

impl Ledger {
    /// Opens the journal of a state folder, with the jobs that it speaks of.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(store: Arc<Store>) -> Result<(Self, BTreeMap<JobId, Replayed>), JournalError> {
        let (journal, jobs) = open_condensed(&store)?;
        let condensed_bytes = journal.len_bytes();
        Ok((Self { journal, store, condensed_bytes }, jobs))
    }

    /// Takes a job on.
    ///
    /// # Errors
    /// [`JournalError`]; the job is then not the daemon's.
    pub fn accept(&mut self, accepted: &Accepted) -> Result<(), JournalError> {
        self.journal.append(&Record::Accepted(accepted.clone()))
    }

    /// A job is about to be drawn from `step` on. Not on disk when this returns: it counts crashes, not power cuts.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn start(&mut self, id: &JobId, step: usize) -> Result<(), JournalError> {
        self.journal.note(&Record::Started { id: id.clone(), step })
    }

    /// A job was laid aside.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn pause(&mut self, id: &JobId) -> Result<(), JournalError> {
        self.journal.append(&Record::Paused { id: id.clone() })
    }

    /// A job ended.
    ///
    /// # Errors
    /// [`JournalError`]; the job has then not ended.
    pub fn end(&mut self, id: &JobId, outcome: &Outcome) -> Result<(), JournalError> {
        let record = Record::Ended { id: id.clone(), outcome: outcome.clone() };
        match self.journal.append(&record) {
            Err(error) if error.is_full() && self.store.give_ballast() => {
                log::warn!("the disk is full: the ballast in {} is gone", self.store.root().display());
                self.journal.append(&record)?;
            }
            other => other?,
        }
        self.store.drop_latents(id);
        self.condense();
        Ok(())
    }

    /// A job and its picture are forgotten.
    pub fn remove(&mut self, id: &JobId) {
        if let Err(error) = self.journal.note(&Record::Removed { id: id.clone() }) {
            log::warn!("job {id}: that it is forgotten is not written down: {error}");
        }
        self.store.drop_image(id);
        self.store.take_ballast();
    }

    /// The step that a job can go on from, 0 if from none.
    pub fn saved_step(&self, id: &JobId) -> usize {
        self.store.load_latents(id).map_or(0, |halfway| halfway.done)
    }

    /// Whether the picture of a job is there.
    pub fn has_image(&self, id: &JobId) -> bool {
        self.store.image(id).exists()
    }

    /// Deletes the files of jobs that are not there any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn clean(&self, kept: &BTreeSet<JobId>, unfinished: &BTreeSet<JobId>) -> Result<(), StoreError> {
        self.store.clean(kept, unfinished)
    }

    /// Leaves out what no longer matters, if the journal has grown.
    fn condense(&mut self) {
        if self.journal.len_bytes() < CONDENSE_BYTES.max(2 * self.condensed_bytes) {
            return;
        }
        match open_condensed(&self.store) {
            Ok((journal, _)) => {
                self.condensed_bytes = journal.len_bytes();
                self.journal = journal;
            }
            Err(error) => log::warn!("{error}: it goes on growing"),
        }
    }
}

/// Opens the journal, and leaves out of it what no longer matters.
fn open_condensed(store: &Store) -> Result<(Journal, BTreeMap<JobId, Replayed>), JournalError> {
    let (mut journal, records) = Journal::open(&store.journal())?;
    let jobs = replay(records);
    journal.rewrite(&condensed(&jobs))?;
    Ok((journal, jobs))
}

/// What a client is told when the journal cannot be written.
impl From<JournalError> for ErrorDetail {
    fn from(error: JournalError) -> Self {
        let code = if error.is_full() { ErrorCode::NoSpace } else { ErrorCode::Internal };
        let message = match &error {
            JournalError::Io { source, .. } => format!("{error}: {source}"),
            JournalError::Foreign { .. } => error.to_string(),
        };
        Self::new(code, message)
    }
}

impl JournalError {
    /// Whether the disk is full, or a quota used up.
    pub fn is_full(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}
