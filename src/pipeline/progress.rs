//! What a caller is told while a picture is made.

/// Receives the course of a run. Every method may be left as it is.
pub trait Progress {
    /// A prompt was longer than the model's context; `dropped` is the part that has no effect.
    fn truncated(&mut self, dropped: &str) {
        let _ = dropped;
    }

    /// `done` of `total` steps, over all pictures of the request.
    fn step(&mut self, done: usize, total: usize) {
        let _ = (done, total);
    }
}

/// For callers who do not want to know.
impl Progress for () {}
