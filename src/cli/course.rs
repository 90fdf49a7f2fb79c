//! The course of a run: a bar, a preview, and its state on disk, after every step.

use super::bar::Bar;
use super::checkpoint::Checkpoint;
use super::preview::Preview;
use crate::pipeline::{Progress, Step};

/// Shows and keeps what a run has come to.
pub struct Course {
    /// How far it is.
    pub bar: Bar,
    /// What the picture looks like.
    pub preview: Option<Preview>,
    /// From where it can be gone on.
    pub checkpoint: Option<Checkpoint>,
}

impl Progress for Course {
    fn truncated(&mut self, dropped: &str) {
        log::warn!("the prompt is longer than the model's context, this part has no effect: {dropped:?}");
    }

    fn wants_original(&self) -> bool {
        self.preview.is_some()
    }

    fn step(&mut self, step: Step) {
        self.bar.set(step.done, step.total);
        if let Some(checkpoint) = &mut self.checkpoint
            && step.done < step.total
        {
            checkpoint.save(&step);
        }
        if let (Some(preview), Some(original)) = (&mut self.preview, step.original) {
            preview.show(original);
        }
    }
}
