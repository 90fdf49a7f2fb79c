//! What a caller is told while a picture is made.

use crate::denoise::run::Observer;
use crate::tensor::Latents;

/// A step that was done.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Steps that are done, over all pictures of the request.
    pub done: usize,
    /// Steps of all pictures of the request.
    pub total: usize,
    /// The latents of the picture in hand after its step: a [`Halfway`](super::Halfway) can go on from here.
    pub latents: &'a Latents,
    /// What the sampler remembers, for the same purpose.
    pub memory: &'a [f32],
    /// The picture that the model saw, as latents, if [`Progress::wants_original`] asked for it.
    pub original: Option<&'a Latents>,
}

/// Receives the course of a run. Every method may be left as it is.
pub trait Progress {
    /// A prompt was longer than the model's context; `dropped` is the part that has no effect.
    fn truncated(&mut self, dropped: &str) {
        let _ = dropped;
    }

    /// Whether the next step is to come with the picture that the model saw.
    fn wants_original(&self) -> bool {
        false
    }

    /// A step is done.
    fn step(&mut self, step: Step) {
        let _ = step;
    }
}

/// For callers who do not want to know.
impl Progress for () {}

/// Tells the caller of one picture's steps as of the request's.
pub(super) struct Watcher<'a> {
    /// The caller.
    pub progress: &'a mut dyn Progress,
    /// The step that the picture began with.
    pub first: usize,
    /// Steps of the request that were done before.
    pub before: usize,
    /// Steps of the request.
    pub total: usize,
}

impl Observer for Watcher<'_> {
    fn wants_original(&self) -> bool {
        self.progress.wants_original()
    }

    fn after_step(&mut self, done: usize, latents: &Latents, memory: &[f32], original: Option<&Latents>) {
        let done = self.before + done - self.first;
        self.progress.step(Step { done, total: self.total, latents, memory, original });
    }
}
