//! Who waits for a picture in one call, and does not want it any more when they leave.

use std::sync::{Arc, Mutex, PoisonError};

use super::Daemon;
use super::record::JobId;

/// What somebody waits for. Dropped before [`Waiter::served`], it cancels the job, also one that is only being accepted.
pub struct Waiter {
    daemon: Arc<Daemon>,
    awaited: Awaited,
}

/// What becomes of the job that a [`Waiter`] waits for.
#[derive(Debug, Clone, Default)]
pub struct Awaited(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    /// It is not accepted yet, or nobody's concern any more.
    #[default]
    Unknown,
    /// It is this one.
    Job(JobId),
    /// Who waited has left.
    Abandoned,
}

impl Waiter {
    /// Waits for a job that is to be handed in.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, awaited: Awaited::default() }
    }

    /// To be told of the job.
    pub fn awaited(&self) -> Awaited {
        self.awaited.clone()
    }

    /// The job has ended.
    pub fn served(self) {
        self.awaited.replace(State::Unknown);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let State::Job(id) = self.awaited.replace(State::Abandoned) {
            let daemon = self.daemon.clone();
            tokio::task::spawn_blocking(move || cancel(&daemon, &id));
        }
    }
}

impl Awaited {
    /// The job was accepted under this name.
    pub fn is(&self, daemon: &Daemon, id: JobId) {
        if let State::Abandoned = self.replace(State::Job(id.clone())) {
            cancel(daemon, &id);
        }
    }

    fn replace(&self, state: State) -> State {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), state)
    }
}

fn cancel(daemon: &Daemon, id: &JobId) {
    if let Err(error) = daemon.desk.cancel(id) {
        log::warn!("job {id}, for which nobody waits, goes on: {}", error.message);
    }
}
