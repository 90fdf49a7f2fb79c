//! A job while the daemon knows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::record::{Accepted, Outcome};
use crate::protocol::{Event, EventLine, JobState, JobView};

/// A job.
#[derive(Debug)]
pub struct Job {
    /// As it was accepted.
    pub accepted: Accepted,
    /// When it has to be there.
    pub deadline: Option<Instant>,
    /// The step from which it would go on.
    pub saved_step: usize,
    /// Its course, for whoever looks on.
    pub course: watch::Sender<Course>,
}

/// How far a job has come.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// When its drawing began, if it did.
    pub began: Option<Instant>,
    /// Steps that are done.
    pub step: usize,
    /// The latest preview in base64, with its step.
    pub preview: Option<(usize, Arc<str>)>,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
}

impl Job {
    /// A job that waits, or has ended; `now_ms` since 1970.
    pub fn new(accepted: Accepted, outcome: Option<Outcome>, now_ms: u64) -> Self {
        let age = Duration::from_millis(now_ms.saturating_sub(accepted.at_ms));
        let left = |limit: u64| Duration::from_millis(limit).saturating_sub(age);
        // A clock that was set back must not give more time than was asked for, which `saturating_sub` sees to.
        let deadline = accepted.order.timeout_ms.and_then(|limit| Instant::now().checked_add(left(limit)));
        let course = watch::Sender::new(Course { outcome, ..Course::default() });
        Self { accepted, deadline, saved_step: 0, course }
    }

    /// Whether nothing will change any more.
    pub fn has_ended(&self) -> bool {
        self.course.borrow().outcome.is_some()
    }

    /// What a client is shown; `position` and `eta` as far as they are known.
    pub fn view(&self, position: Option<usize>, eta: Option<Duration>) -> JobView {
        let (course, order) = (self.course.borrow(), &self.accepted.order);
        let (sha256, error) = match &course.outcome {
            Some(Outcome::Done { sha256, .. }) => (Some(sha256.clone()), None),
            Some(Outcome::Failed { error }) => (None, Some(error.clone())),
            _ => (None, None),
        };
        let eta_ms = eta.map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX));
        JobView {
            id: self.accepted.id.to_string(),
            state: course.state(),
            position,
            eta_ms,
            step: course.step,
            steps: order.steps,
            model: order.model.clone(),
            seed: order.seed,
            width: order.width,
            height: order.height,
            created_ms: self.accepted.at_ms,
            sha256,
            error,
        }
    }
}

impl Course {
    /// Where the job stands.
    pub fn state(&self) -> JobState {
        match &self.outcome {
            Some(Outcome::Done { .. }) => JobState::Done,
            Some(Outcome::Failed { .. }) => JobState::Failed,
            Some(Outcome::Cancelled) => JobState::Cancelled,
            None if self.began.is_some() => JobState::Running,
            None => JobState::Queued,
        }
    }

    /// The events from number `from` on that there have been so far, of a job of so many steps.
    ///
    /// Nothing is kept for this: the number of an event says what it is. The progress of step s is number 2s, its preview
    /// 2s + 1, and the end comes after the last step's. Of previews there is only the latest.
    pub fn events(&self, from: u64, steps: usize) -> Vec<EventLine> {
        let mut lines = Vec::new();
        let mut add = |n: u64, event| {
            if n >= from {
                lines.push(EventLine { n, event });
            }
        };
        let steps_done = if matches!(self.outcome, Some(Outcome::Done { .. })) { steps } else { self.step };
        let first = usize::try_from(from / 2).unwrap_or(usize::MAX).max(1);
        for step in first..=steps_done {
            add(2 * step as u64, Event::Progress { step, steps });
            if let Some((_, b64)) = self.preview.as_ref().filter(|(at, _)| *at == step) {
                let (mime, b64) = ("image/png".to_owned(), b64.to_string());
                add(2 * step as u64 + 1, Event::Preview { mime, b64 });
            }
        }
        let end = match &self.outcome {
            Some(Outcome::Done { sha256, .. }) => Some(Event::Done { sha256: sha256.clone() }),
            Some(Outcome::Failed { error }) => Some(Event::Failed { error: error.clone() }),
            Some(Outcome::Cancelled) => Some(Event::Cancelled),
            None => None,
        };
        if let Some(end) = end {
            // Whoever asks from further on than there is gets the end all the same: there is nothing else to come.
            lines.push(EventLine { n: (2 * steps as u64 + 2).max(from), event: end });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> Option<Outcome> {
        Some(Outcome::Done { sha256: "00".into(), bytes: 1 })
    }

    fn numbers(course: &Course, from: u64) -> Vec<u64> {
        course.events(from, 4).iter().map(|line| line.n).collect()
    }

    #[test]
    fn events_are_numbered_the_same_for_everybody() {
        let mut course = Course { step: 2, preview: Some((2, "cGln".into())), ..Course::default() };
        assert_eq!(numbers(&course, 0), [2, 4, 5]);
        assert_eq!(numbers(&course, 4), [4, 5]);
        assert_eq!(numbers(&course, 5), [5]);
        assert!(numbers(&course, 6).is_empty());
        course.outcome = Some(Outcome::Cancelled);
        assert_eq!(numbers(&course, 5), [5, 10]);
        assert_eq!(numbers(&course, 11), [11]);
    }

    #[test]
    fn there_is_exactly_one_end_and_it_comes_last() {
        let course = Course { outcome: done(), ..Course::default() };
        for from in [0, 3, 9, 10, 99, u64::MAX] {
            let lines = course.events(from, 4);
            let ends = lines.iter().filter(|line| line.event.is_terminal()).count();
            assert_eq!((ends, lines.last().unwrap().event.is_terminal()), (1, true), "from {from}");
        }
        assert_eq!(numbers(&course, 0), [2, 4, 6, 8, 10]);
    }
}
