//! What everybody reads: the jobs, the queue, and what is being drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Keep;
use super::desk::Reason;
use super::job::{Course, Job};
use super::queue::{Queue, QueueLimits, Uid};
use super::record::{JobId, Outcome};
use super::speed::Speeds;
use crate::engine::Pulse;
use crate::protocol::JobView;

/// What has been counted since the daemon began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Jobs that were accepted.
    pub accepted: u64,
    /// Jobs that ended with a picture.
    pub done: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Steps that were done.
    pub steps: u64,
}

/// The jobs, and where they stand.
#[derive(Debug)]
pub struct Book {
    /// The jobs, by name and so by age.
    pub jobs: BTreeMap<JobId, Job>,
    /// The jobs that were handed in under a key.
    pub keys: BTreeMap<(Uid, String), JobId>,
    /// Those that wait.
    pub queue: Queue<JobId>,
    /// The one that is being drawn.
    pub running: Option<Running>,
    /// Stops what the compute thread does while no job waits.
    pub pastime: Pulse,
    /// How long pictures take.
    pub speeds: Speeds,
    /// What has been counted.
    pub counts: Counts,
    /// Whether no more jobs are taken.
    pub is_draining: bool,
}

/// The job that is being drawn.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub id: JobId,
    /// Stopped when it is to end early.
    pub pulse: Pulse,
    /// Why it is to end early.
    pub reason: Option<Reason>,
}

impl Book {
    /// A book without jobs.
    pub fn new(limits: QueueLimits, speeds: Speeds) -> Self {
        Self {
            jobs: BTreeMap::new(),
            keys: BTreeMap::new(),
            queue: Queue::new(limits),
            running: None,
            pastime: Pulse::default(),
            speeds,
            counts: Counts::default(),
            is_draining: false,
        }
    }

    /// Changes how far a job has come, and lets everybody know who looks on.
    pub fn change(&self, id: &JobId, change: impl FnOnce(&mut Course)) {
        if let Some(job) = self.jobs.get(id) {
            job.course.send_modify(change);
        }
    }

    /// Ends a job.
    pub fn end(&mut self, id: &JobId, outcome: Outcome) {
        match &outcome {
            Outcome::Done { .. } => self.counts.done += 1,
            Outcome::Failed { .. } => self.counts.failed += 1,
            Outcome::Cancelled => self.counts.cancelled += 1,
        }
        self.change(id, |course| {
            course.preview = None;
            course.outcome = Some(outcome);
        });
    }

    /// Seconds of a job that was not begun, or what is left of it.
    fn seconds(&self, id: &JobId) -> Option<f64> {
        let job = self.jobs.get(id)?;
        let (order, course) = (&job.accepted.order, job.course.borrow());
        let left = order.steps.saturating_sub(course.step.max(job.saved_step));
        self.speeds.get(&order.kind()).map(|speed| speed.seconds(left))
    }

    /// Seconds until a job that is handed in now would begin, if the speed of all others is known.
    pub fn wait(&self) -> Option<f64> {
        let running = self.running.iter().map(|running| &running.id);
        running.chain(&self.queue.order()).map(|id| self.seconds(id)).sum()
    }

    /// What a client is shown of a job.
    pub fn view(&self, id: &JobId, job: &Job) -> JobView {
        if job.has_ended() {
            return job.view(None, Some(Duration::ZERO));
        }
        let order = self.queue.order();
        let position = order.iter().position(|waiting| waiting == id);
        let running = self.running.iter().map(|running| &running.id).filter(|running| *running != id);
        let ahead = running.chain(&order[..position.unwrap_or(0)]).map(|id| self.seconds(id));
        let seconds: Option<f64> = ahead.chain([self.seconds(id)]).sum();
        job.view(position, seconds.map(Duration::from_secs_f64))
    }

    /// The oldest ended jobs beyond what is kept.
    pub fn beyond(&self, keep: &Keep) -> Vec<JobId> {
        let ended = self.jobs.iter().rev().filter_map(|(id, job)| match &job.course.borrow().outcome {
            Some(Outcome::Done { bytes, .. }) => Some((id, *bytes)),
            Some(_) => Some((id, 0)),
            None => None,
        });
        let (mut count, mut bytes) = (0, 0);
        let mut beyond = |size: u64| {
            (count, bytes) = (count + 1, bytes + size);
            count > keep.jobs || bytes > keep.bytes
        };
        ended.filter(|&(_, size)| beyond(size)).map(|(id, _)| id.clone()).collect()
    }
}
