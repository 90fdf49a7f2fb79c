//! Jobs that wait: bounded, and fair between users.
//!
//! The next job is the oldest of the user who was served longest ago. So one user with many jobs delays another by one job
//! at most.

use heapless::Vec;

/// The most jobs that any setting lets wait.
pub const CAPACITY: usize = 256;

/// A user of the machine.
pub type Uid = u32;

/// How many jobs may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// In all, less than [`CAPACITY`].
    pub total: usize,
    /// Of one user.
    pub per_user: usize,
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueFull {
    /// Too many jobs wait.
    #[error("{limit} jobs are waiting already")]
    Total {
        /// How many may.
        limit: usize,
    },
    /// Too many jobs of this user wait.
    #[error("{limit} jobs of this user are waiting already")]
    User {
        /// How many may.
        limit: usize,
    },
}

/// Waiting jobs of type `J`.
#[derive(Debug)]
pub struct Queue<J> {
    limits: QueueLimits,
    /// In the order of their arrival.
    waiting: Vec<(Uid, J), CAPACITY>,
    /// Users in the order in which they were last served; who is not in it was served longest ago.
    served: Vec<Uid, CAPACITY>,
}

impl<J: PartialEq + Clone> Queue<J> {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> Self {
        let limits = QueueLimits { total: limits.total.min(CAPACITY - 1), ..limits };
        Self { limits, waiting: Vec::new(), served: Vec::new() }
    }

    /// Whether another job of this user would be taken.
    ///
    /// # Errors
    /// [`QueueFull`], with the limit that is reached.
    pub fn check(&self, uid: Uid) -> Result<(), QueueFull> {
        if self.waiting.len() >= self.limits.total {
            return Err(QueueFull::Total { limit: self.limits.total });
        }
        if self.waiting.iter().filter(|(owner, _)| *owner == uid).count() >= self.limits.per_user {
            return Err(QueueFull::User { limit: self.limits.per_user });
        }
        Ok(())
    }

    /// Adds a job at the end of its user's.
    ///
    /// # Errors
    /// As [`Queue::check`].
    pub fn push(&mut self, uid: Uid, job: J) -> Result<(), QueueFull> {
        self.check(uid)?;
        let total = self.limits.total;
        self.waiting.push((uid, job)).map_err(|_| QueueFull::Total { limit: total })
    }

    /// Takes a job in that was in the queue before, or was taken from it: limits do not count for it.
    ///
    /// # Panics
    /// If there are more such jobs than a queue can have held.
    pub fn readmit(&mut self, uid: Uid, job: J) {
        assert!(self.waiting.push((uid, job)).is_ok(), "there is room for a full queue and the job in hand");
    }

    /// Its limits.
    pub fn limits(&self) -> QueueLimits {
        self.limits
    }

    /// Takes the next job.
    pub fn pop(&mut self) -> Option<J> {
        let at = next(&self.waiting, &self.served)?;
        let (uid, job) = self.waiting.remove(at);
        serve(&mut self.served, uid, &self.waiting);
        Some(job)
    }

    /// Takes a job out, wherever it is; whether it was there.
    pub fn remove(&mut self, job: &J) -> bool {
        let at = self.waiting.iter().position(|(_, waiting)| waiting == job);
        at.map(|at| self.waiting.remove(at)).is_some()
    }

    /// The jobs in the order in which they would be taken, if no more arrive.
    pub fn order(&self) -> Vec<J, CAPACITY> {
        let (mut waiting, mut served, mut order) = (self.waiting.clone(), self.served.clone(), Vec::new());
        while let Some(at) = next(&waiting, &served) {
            let (uid, job) = waiting.remove(at);
            serve(&mut served, uid, &waiting);
            // There are as many jobs as there were.
            let _ = order.push(job);
        }
        order
    }

    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// The place of the next job.
fn next<J>(waiting: &[(Uid, J)], served: &[Uid]) -> Option<usize> {
    let turn = |uid: Uid| served.iter().position(|&other| other == uid).map_or(0, |place| place + 1);
    (0..waiting.len()).min_by_key(|&at| (turn(waiting[at].0), at))
}

/// Puts a user at the end of the turns; those who have nothing waiting are forgotten.
fn serve<J>(served: &mut Vec<Uid, CAPACITY>, uid: Uid, waiting: &[(Uid, J)]) {
    served.retain(|&other| other != uid && waiting.iter().any(|(owner, _)| *owner == other));
    // There are no more users than waiting jobs, and this one.
    let _ = served.push(uid);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(jobs: &[(Uid, u32)]) -> Queue<u32> {
        let mut queue = Queue::new(QueueLimits { total: 16, per_user: 8 });
        jobs.iter().for_each(|&(uid, job)| queue.push(uid, job).unwrap());
        queue
    }

    fn drained(mut queue: Queue<u32>) -> std::vec::Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn users_take_turns_and_each_keeps_the_order_of_its_own() {
        let jobs = [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)];
        assert_eq!(drained(queue(&jobs)), [10, 20, 30, 11, 21, 12]);
    }

    #[test]
    fn who_comes_late_is_served_before_who_was_just_served() {
        let mut queue = queue(&[(1, 10), (1, 11), (1, 12)]);
        assert_eq!(queue.pop(), Some(10));
        queue.push(2, 20).unwrap();
        assert_eq!(drained(queue), [20, 11, 12]);
    }

    #[test]
    fn the_order_to_come_is_told() {
        let queue = queue(&[(1, 10), (1, 11), (2, 20), (1, 12), (2, 21)]);
        let told = queue.order().to_vec();
        assert_eq!(told, drained(queue));
    }

    #[test]
    fn limits_are_kept() {
        let mut queue = Queue::new(QueueLimits { total: 3, per_user: 2 });
        queue.push(1, 10).unwrap();
        queue.push(1, 11).unwrap();
        assert_eq!(queue.push(1, 12), Err(QueueFull::User { limit: 2 }));
        queue.push(2, 20).unwrap();
        assert_eq!(queue.push(3, 30), Err(QueueFull::Total { limit: 3 }));
        assert!(queue.remove(&11) && !queue.remove(&11));
        queue.push(3, 30).unwrap();
        assert_eq!(queue.len(), 3);
    }
}
