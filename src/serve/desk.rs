//! The desk: jobs are handed in at it, taken from it, and watched over it. Every change of a job's state is made here.
//!
//! ```text
//! accept      checks, journal, queue        a client's thread
//! next        queue, journal                the compute thread
//! finish      journal, course               the compute thread
//! cancel      journal, course; or a stop    a client's thread
//! ```
//! Two locks. Whoever holds the *ledger* may change states, and holds it while the journal is on its way to the disk. The
//! *book* is what everybody reads, and is held for moments only. So a slow disk holds up changes and nobody who looks on.
//! The ledger is taken before the book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::book::{Book, Counts, Running};
use super::job::{Course, Job};
use super::ledger::Ledger;
use super::order::Order;
use super::queue::{QueueLimits, Uid};
use super::record::{Accepted, JobId, Outcome, Replayed, STARTS_MAX};
use super::speed::{Kind, Speed, Speeds};
use super::{Keep, ServeError, now_ms};
use crate::engine::Pulse;
use crate::protocol::{ErrorCode, ErrorDetail, JobView};

/// How long to wait before what failed is tried again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a job that is being drawn is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody does not want it any more.
    Cancelled,
    /// Its time is over.
    TimedOut,
    /// The daemon stops, and will go on with it.
    Paused,
}

/// A job that was taken to be drawn.
#[derive(Debug, Clone)]
pub struct Task {
    /// The job.
    pub id: JobId,
    /// What to draw.
    pub order: Order,
    /// Stopped when it is to end early.
    pub pulse: Pulse,
}

/// What is there to do.
#[derive(Debug)]
pub enum Next {
    /// A job.
    Task(Task),
    /// Nothing so far.
    Nothing,
    /// Nothing any more.
    Stop,
}

/// The desk.
pub struct Desk {
    ledger: Mutex<Ledger>,
    book: Mutex<Book>,
    pub(super) work: Condvar,
    pulse: Pulse,
    keep: Keep,
}

impl Desk {
    /// A desk with the jobs that an earlier daemon left: those that have not ended wait again, with the step that they
    /// can go on from; but one that ended the daemon twice without getting further has failed.
    ///
    /// # Errors
    /// [`ServeError`] if the journal cannot be written, or the folder not be read.
    pub fn open(
        mut ledger: Ledger,
        replayed: BTreeMap<JobId, Replayed>,
        limits: QueueLimits,
        keep: Keep,
        speeds: Speeds,
    ) -> Result<Self, ServeError> {
        let mut book = Book::new(limits, speeds);
        for (id, Replayed { accepted, starts, mut outcome }) in replayed {
            if matches!(outcome, Some(Outcome::Done { .. })) && !ledger.has_image(&id) {
                log::warn!("the picture of job {id} is gone, and so is the job");
                ledger.remove(&id);
                continue;
            }
            let saved_step = if outcome.is_none() { ledger.saved_step(&id) } else { 0 };
            if outcome.is_none() && starts.1 >= STARTS_MAX && starts.0 >= saved_step {
                let message = format!("the daemon ended {STARTS_MAX} times while it drew this picture");
                let failed = Outcome::failed(ErrorCode::CrashedRepeatedly, message);
                ledger.end(&id, &failed)?;
                outcome = Some(failed);
            }
            if let Some(key) = &accepted.key {
                book.keys.insert((accepted.uid, key.clone()), id.clone());
            }
            if outcome.is_none() {
                book.queue.readmit(accepted.uid, id.clone());
            }
            let job = Job { saved_step, ..Job::new(accepted, outcome, now_ms()) };
            book.jobs.insert(id, job);
        }
        let (kept, unfinished) = book.jobs.iter().partition::<Vec<_>, _>(|(_, job)| job.has_ended());
        let names = |jobs: Vec<(&JobId, &Job)>| jobs.into_iter().map(|(id, _)| id.clone()).collect();
        let (kept, unfinished): (BTreeSet<JobId>, BTreeSet<JobId>) = (names(kept), names(unfinished));
        ledger.clean(&kept, &unfinished)?;
        let (ledger, book) = (Mutex::new(ledger), Mutex::new(book));
        Ok(Self { ledger, book, work: Condvar::new(), pulse: Pulse::default(), keep })
    }

    /// Waits for a job to draw, at most so long.
    pub fn next(&self, patience: Duration) -> Next {
        {
            let book = self.book();
            let idle = |book: &mut Book| book.queue.len() == 0 && !book.is_draining;
            let (book, _) =
                self.work.wait_timeout_while(book, patience, idle).unwrap_or_else(PoisonError::into_inner);
            if book.is_draining {
                return Next::Stop;
            }
        }
        let mut ledger = self.ledger();
        let mut book = self.book();
        let Some(id) = book.queue.pop() else { return Next::Nothing };
        let job = &book.jobs[&id];
        let (order, step, uid) = (job.accepted.order.clone(), job.saved_step, job.accepted.uid);
        drop(book);
        if let Err(error) = ledger.start(&id, step) {
            log::error!("job {id} cannot be started: {error}");
            self.book().queue.readmit(uid, id);
            drop(ledger);
            std::thread::sleep(patience);
            return Next::Nothing;
        }
        let pulse = self.pulse.renewed();
        let mut book = self.book();
        book.running = Some(Running { id: id.clone(), pulse: pulse.clone(), reason: None });
        book.change(&id, |course| (course.began, course.step) = (Some(Instant::now()), step));
        Next::Task(Task { id, order, pulse })
    }

    /// A step of the job that is being drawn is done; `saved` if its state was kept.
    pub fn step(&self, id: &JobId, step: usize, preview: Option<Arc<str>>, saved: bool) {
        let mut book = self.book();
        book.counts.steps += 1;
        if let Some(job) = book.jobs.get_mut(id).filter(|_| saved) {
            job.saved_step = step;
        }
        book.change(id, |course| {
            course.step = step;
            course.preview = preview.map(|preview| (step, preview));
        });
    }

    /// Ends the job that was drawn. When this returns, that is on disk, however long that takes.
    pub fn finish(&self, id: &JobId, outcome: Outcome) {
        loop {
            let mut ledger = self.ledger();
            match ledger.end(id, &outcome) {
                Ok(()) => {
                    let mut book = self.book();
                    book.running = None;
                    book.end(id, outcome);
                    drop(book);
                    return self.forget_old(&mut ledger);
                }
                Err(error) => log::error!("that job {id} has ended cannot be written down: {error}"),
            }
            drop(ledger);
            // Alive, if not well: a restart would not make room either.
            let _ = self.pulse.beat();
            std::thread::sleep(PATIENCE);
        }
    }

    /// Lays the job that was being drawn aside; it goes on when the daemon has started anew.
    pub fn pause(&self, id: &JobId) {
        let mut ledger = self.ledger();
        if let Err(error) = ledger.pause(id) {
            log::warn!("job {id}: that it was laid aside is not written down: {error}");
        }
        self.book().running = None;
    }

    /// Why the job that is being drawn is to end early, if it is.
    pub fn reason(&self, id: &JobId) -> Option<Reason> {
        self.book().running.as_ref().filter(|running| running.id == *id).and_then(|running| running.reason)
    }

    /// Cancels a job: at once if it waits, soon if it is being drawn, not at all if it has ended.
    ///
    /// # Errors
    /// `no_space` if that cannot be written down.
    pub fn cancel(&self, id: &JobId) -> Result<(), ErrorDetail> {
        self.end_early(id, Reason::Cancelled)
    }

    fn end_early(&self, id: &JobId, reason: Reason) -> Result<(), ErrorDetail> {
        let mut ledger = self.ledger();
        {
            let mut book = self.book();
            if let Some(running) = book.running.as_mut().filter(|running| running.id == *id) {
                running.reason.get_or_insert(reason);
                running.pulse.stop();
                return Ok(());
            }
            if book.jobs.get(id).is_none_or(Job::has_ended) {
                return Ok(());
            }
        }
        let outcome = match reason {
            Reason::TimedOut => Outcome::failed(ErrorCode::Timeout, "its time was over while it waited"),
            Reason::Cancelled | Reason::Paused => Outcome::Cancelled,
        };
        ledger.end(id, &outcome)?;
        let mut book = self.book();
        book.queue.remove(id);
        book.end(id, outcome);
        Ok(())
    }

    /// Ends jobs whose time is over.
    pub fn expire(&self) {
        let now = Instant::now();
        let late = |(id, job): (&JobId, &Job)| {
            let is_late = job.deadline.is_some_and(|deadline| deadline <= now) && !job.has_ended();
            is_late.then(|| id.clone())
        };
        let late: Vec<JobId> = self.book().jobs.iter().filter_map(late).collect();
        for id in late {
            if let Err(error) = self.end_early(&id, Reason::TimedOut) {
                log::warn!("job {id} is late, which cannot be written down: {}", error.message);
            }
        }
    }

    /// Takes no more jobs, and lets the compute thread end after the one in hand.
    pub fn drain(&self) {
        let mut book = self.book();
        book.is_draining = true;
        book.pastime.stop();
        drop(book);
        self.work.notify_all();
    }

    /// Lays the job in hand aside at its next beat.
    pub fn stop(&self) {
        if let Some(running) = &mut self.book().running {
            running.reason.get_or_insert(Reason::Paused);
            running.pulse.stop();
        }
    }

    /// Forgets the oldest jobs that have ended, beyond what is kept.
    fn forget_old(&self, ledger: &mut Ledger) {
        let old = self.book().beyond(&self.keep);
        for id in old {
            ledger.remove(&id);
            let mut book = self.book();
            if let Some(Job { accepted: Accepted { uid, key: Some(key), .. }, .. }) = book.jobs.remove(&id) {
                book.keys.remove(&(uid, key));
            }
        }
    }

    /// A job as it stands.
    pub fn view(&self, id: &str) -> Option<JobView> {
        let book = self.book();
        let (id, job) = book.jobs.get_key_value(id)?;
        Some(book.view(id, job))
    }

    /// The jobs of a user, or everybody's, by age.
    pub fn views(&self, uid: Option<Uid>) -> Vec<JobView> {
        let book = self.book();
        let wanted = book.jobs.iter().filter(|(_, job)| uid.is_none_or(|uid| job.accepted.uid == uid));
        wanted.map(|(id, job)| book.view(id, job)).collect()
    }

    /// Whose job it is.
    pub fn owner(&self, id: &str) -> Option<(JobId, Uid)> {
        let book = self.book();
        book.jobs.get_key_value(id).map(|(id, job)| (id.clone(), job.accepted.uid))
    }

    /// A job's course to look on at, and how many steps it has.
    pub fn watch(&self, id: &str) -> Option<(watch::Receiver<Course>, usize)> {
        let book = self.book();
        book.jobs.get(id).map(|job| (job.course.subscribe(), job.accepted.order.steps))
    }

    /// Takes a measurement in; whether it was the first of its kind.
    pub fn measured(&self, kind: Kind, speed: Speed) -> bool {
        self.book().speeds.add(kind, speed)
    }

    /// If the speed of this kind of picture is not known and no job waits: a pulse for measuring it, which stops when a
    /// job arrives.
    pub fn pastime(&self, kind: &Kind) -> Option<Pulse> {
        let mut book = self.book();
        if book.queue.len() > 0 || book.is_draining || book.speeds.get(kind).is_some() {
            return None;
        }
        book.pastime = self.pulse.renewed();
        Some(book.pastime.clone())
    }

    /// The speeds that were measured.
    pub fn speeds(&self) -> Speeds {
        self.book().speeds.clone()
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        self.book().counts
    }

    /// How many jobs wait, how many may, and which one is being drawn.
    pub fn load(&self) -> (usize, QueueLimits, Option<JobId>) {
        let book = self.book();
        (book.queue.len(), book.queue.limits(), book.running.as_ref().map(|running| running.id.clone()))
    }

    /// Whether the daemon is stopping.
    pub fn is_draining(&self) -> bool {
        self.book().is_draining
    }

    /// Beats while the compute thread advances.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Whoever holds it may change states.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held for moments only.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
