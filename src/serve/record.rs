//! What the journal says of jobs, and what follows from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::order::Order;
use super::queue::Uid;
use crate::protocol::{ErrorCode, ErrorDetail};

/// A job that was started so often from the same step, without an end, is what brings the daemon down.
pub const STARTS_MAX: usize = 2;

/// The name of a job; names sort by time.
pub type JobId = Arc<str>;

/// A job as it was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its name.
    pub id: JobId,
    /// Whose it is.
    pub uid: Uid,
    /// The key under which the same request is the same job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A hash of the request, to tell a repetition from another request under the same key.
    pub digest: String,
    /// What to draw.
    pub order: Order,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// With a picture.
    Done {
        /// The file's SHA-256.
        sha256: String,
        /// The file's length.
        bytes: u64,
    },
    /// Without.
    Failed {
        /// Why.
        error: ErrorDetail,
    },
    /// Because somebody did not want it any more.
    Cancelled,
}

impl Outcome {
    /// A failure.
    pub fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Failed { error: ErrorDetail::new(code, message) }
    }
}

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A job is the daemon's to do.
    Accepted(Accepted),
    /// Its drawing began, after this step.
    Started {
        /// The job.
        id: JobId,
        /// Steps that were done.
        step: usize,
    },
    /// Its drawing was broken off by the daemon itself, which is going to go on with it.
    Paused {
        /// The job.
        id: JobId,
    },
    /// It ended.
    Ended {
        /// The job.
        id: JobId,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// It was forgotten, with its picture, to make room.
    Removed {
        /// The job.
        id: JobId,
    },
}

/// A job as the journal leaves it.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// As it was accepted.
    pub accepted: Accepted,
    /// Starts without an end, by the step that they began after; only those of the latest step count.
    pub starts: (usize, usize),
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
}

/// The jobs that these records leave, by name and so by age.
pub fn replay(records: Vec<Record>) -> BTreeMap<JobId, Replayed> {
    let mut jobs = BTreeMap::new();
    for record in records {
        match record {
            Record::Accepted(accepted) => {
                let id = accepted.id.clone();
                jobs.insert(id, Replayed { accepted, starts: (0, 0), outcome: None });
            }
            Record::Removed { id } => {
                jobs.remove(&id);
            }
            Record::Started { id, step } => change(&mut jobs, &id, |job| {
                job.starts = if job.starts.0 == step { (step, job.starts.1 + 1) } else { (step, 1) };
            }),
            Record::Paused { id } => change(&mut jobs, &id, |job| job.starts.1 = 0),
            Record::Ended { id, outcome } => {
                change(&mut jobs, &id, |job| job.outcome = job.outcome.take().or(Some(outcome)));
            }
        }
    }
    jobs
}

fn change(jobs: &mut BTreeMap<JobId, Replayed>, id: &JobId, change: impl FnOnce(&mut Replayed)) {
    match jobs.get_mut(id) {
        Some(job) => change(job),
        None => log::warn!("the journal speaks of job {id}, which it never accepted"),
    }
}

/// The records that leave these jobs.
pub fn condensed(jobs: &BTreeMap<JobId, Replayed>) -> Vec<Record> {
    let mut records = Vec::with_capacity(jobs.len() * 2);
    for (id, job) in jobs {
        records.push(Record::Accepted(job.accepted.clone()));
        let (step, count) = job.starts;
        match &job.outcome {
            Some(outcome) => records.push(Record::Ended { id: id.clone(), outcome: outcome.clone() }),
            None => records.extend((0..count).map(|_| Record::Started { id: id.clone(), step })),
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(id: &str) -> Record {
        let order = Order::example();
        Record::Accepted(Accepted {
            id: id.into(),
            uid: 1,
            key: None,
            digest: String::new(),
            order,
            at_ms: 5,
        })
    }

    fn started(id: &str, step: usize) -> Record {
        Record::Started { id: id.into(), step }
    }

    #[test]
    fn starts_count_from_the_latest_step_only() {
        let records = vec![accepted("a"), started("a", 0), started("a", 0), started("a", 4)];
        assert_eq!(replay(records.clone())["a"].starts, (4, 1));
        let paused = Record::Paused { id: "a".into() };
        let records = [records, vec![paused]].concat();
        assert_eq!(replay(records)["a"].starts, (4, 0));
    }

    #[test]
    fn the_first_end_counts_and_what_was_removed_is_gone() {
        let ended = |id: &str, outcome| Record::Ended { id: id.into(), outcome };
        let done = Outcome::Done { sha256: "00".into(), bytes: 1 };
        let records = vec![
            accepted("a"),
            accepted("b"),
            ended("a", done.clone()),
            ended("a", Outcome::Cancelled),
            Record::Removed { id: "b".into() },
            ended("b", Outcome::Cancelled),
        ];
        let jobs = replay(records);
        assert_eq!(jobs.keys().map(|id| &**id).collect::<Vec<_>>(), ["a"]);
        assert_eq!(jobs["a"].outcome, Some(done));
    }

    #[test]
    fn condensed_records_leave_the_same_jobs() {
        let cancelled = Record::Ended { id: "b".into(), outcome: Outcome::Cancelled };
        let records = vec![accepted("a"), accepted("b"), started("a", 3), started("b", 0), cancelled];
        let jobs = replay(records);
        let mut again = replay(condensed(&jobs));
        again.get_mut("b").unwrap().starts = jobs["b"].starts;
        assert_eq!(again, jobs);
    }

    #[test]
    fn records_are_flat_json() {
        let record = Record::Ended { id: "a".into(), outcome: Outcome::failed(ErrorCode::Timeout, "late") };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"record":"ended","id":"a","outcome":"failed","error":{"code":"timeout","message":"late"}}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
