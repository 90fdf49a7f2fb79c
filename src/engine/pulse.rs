//! The sign of life of a run, and the way to end it early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Beats before every operation, and before every stripe of one that is worked on in stripes. Whoever holds a clone can
/// count the beats, and stop the run at the next one.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    beats: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

/// The run was stopped by its [`Pulse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was stopped")]
pub struct Stopped;

impl Pulse {
    /// A pulse for the next run: it has not been stopped, and its beats are counted on.
    pub fn renewed(&self) -> Self {
        Self { beats: self.beats.clone(), stopped: Arc::default() }
    }

    /// One beat.
    ///
    /// # Errors
    /// [`Stopped`] if that was asked for.
    pub fn beat(&self) -> Result<(), Stopped> {
        self.beats.fetch_add(1, Ordering::Relaxed);
        if self.is_stopped() { Err(Stopped) } else { Ok(()) }
    }

    /// Ends the run at its next beat.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the run is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The beats so far.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}
