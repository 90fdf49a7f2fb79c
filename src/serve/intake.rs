//! How a job comes to the desk.

use super::desk::Desk;
use super::job::Job;
use super::now_ms;
use super::order::Order;
use super::queue::{QueueFull, Uid};
use super::record::{Accepted, JobId};
use crate::pipeline::random_seed;
use crate::protocol::{ErrorCode, ErrorDetail, JobView};

/// Fewer steps than this make no picture worth offering.
const STEPS_OFFERED_MIN: usize = 4;

/// A request that passed its checks.
#[derive(Debug)]
pub struct Submission {
    /// Who asks.
    pub uid: Uid,
    /// The key under which the same request is the same job.
    pub key: Option<String>,
    /// A hash of the request.
    pub digest: String,
    /// What to draw.
    pub order: Order,
}

impl Desk {
    /// Takes a job, or finds the one that was taken under the same key. When this returns, the job is on disk.
    ///
    /// # Errors
    /// `draining`, `queue_full`, `idempotency_mismatch`, `timeout` if it cannot be there in time, `no_space`.
    pub fn accept(&self, submission: Submission) -> Result<JobView, ErrorDetail> {
        let mut ledger = self.ledger();
        if let Some(id) = self.known(&submission)? {
            return self.view(&id).ok_or_else(|| ErrorDetail::new(ErrorCode::Internal, "the job is gone"));
        }
        self.check(&submission)?;
        let Submission { uid, key, digest, order } = submission;
        let accepted = Accepted { id: self.new_id(), uid, key, digest, order, at_ms: now_ms() };
        ledger.accept(&accepted)?;
        let id = accepted.id.clone();
        {
            let mut book = self.book();
            if let Some(key) = &accepted.key {
                book.keys.insert((uid, key.clone()), id.clone());
            }
            book.jobs.insert(id.clone(), Job::new(accepted, None, now_ms()));
            book.queue
                .push(uid, id.clone())
                .expect("the queue had room, and only the holder of the ledger adds");
            book.counts.accepted += 1;
            book.pastime.stop();
        }
        self.work.notify_all();
        Ok(self.view(&id).expect("it was just put there"))
    }

    /// The job that was accepted under the same key.
    fn known(&self, submission: &Submission) -> Result<Option<JobId>, ErrorDetail> {
        let Some(key) = &submission.key else { return Ok(None) };
        let book = self.book();
        let Some(id) = book.keys.get(&(submission.uid, key.clone())) else { return Ok(None) };
        if book.jobs.get(id).is_some_and(|job| job.accepted.digest == submission.digest) {
            return Ok(Some(id.clone()));
        }
        let message = format!("the key `{key}` belongs to another request, job {id}: take a new key");
        Err(ErrorDetail::new(ErrorCode::IdempotencyMismatch, message))
    }

    /// Whether there is room and time for another job.
    fn check(&self, submission: &Submission) -> Result<(), ErrorDetail> {
        let book = self.book();
        if book.is_draining {
            let message = "the daemon is stopping: ask again when it has started anew";
            return Err(ErrorDetail::new(ErrorCode::Draining, message).retry_after(5000));
        }
        let ahead = book.wait();
        book.queue.check(submission.uid).map_err(|full: QueueFull| {
            let seconds = ahead.map_or(10.0, |ahead| ahead / (book.queue.len() + 1) as f64);
            ErrorDetail::new(ErrorCode::QueueFull, full.to_string()).retry_after(milliseconds(seconds))
        })?;
        let (Some(limit), Some(ahead)) = (submission.order.timeout_ms, ahead) else { return Ok(()) };
        let (limit, kind) = (limit as f64 / 1000.0, submission.order.kind());
        let Some(speed) = book.speeds.get(&kind) else { return Ok(()) };
        let needed = ahead + speed.seconds(submission.order.steps);
        if needed <= limit {
            return Ok(());
        }
        let message =
            format!("the picture would be there in {needed:.1} s, and timeout_ms leaves {limit:.1} s");
        let offer =
            book.speeds.offer(&kind, limit - ahead, STEPS_OFFERED_MIN, &submission.order.smaller_sizes());
        Err(ErrorDetail {
            offer,
            ..ErrorDetail::new(ErrorCode::Timeout, message).retry_after(milliseconds(ahead))
        })
    }

    /// A name that no job has, and that sorts behind all others.
    fn new_id(&self) -> JobId {
        let book = self.book();
        let name = || JobId::from(format!("{:011x}{:08x}", now_ms(), random_seed()));
        let mut ids = std::iter::repeat_with(name);
        ids.find(|id| !book.jobs.contains_key(id)).expect("names do not run out")
    }
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).ceil() as u64
}
