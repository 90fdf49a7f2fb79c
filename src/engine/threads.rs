//! The threads of a run, as tract's executor carries them.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use tract_linalg::multithread::{Executor, current_tract_executor};

/// Bytes that are moved in about the time that it takes to hand work to a thread, several times over.
const LIGHT_BYTES: usize = 1 << 17;

/// A number of threads to work with, at least 1.
#[derive(Debug, Clone)]
pub struct Threads(Executor);

impl Threads {
    /// A pool of `count` threads, or none for 1.
    pub fn new(count: usize) -> Self {
        Self(if count > 1 {
            Executor::multithread_with_name(count, "tintype")
        } else {
            Executor::SingleThread
        })
    }

    /// How many the machine has cores for.
    pub fn cores() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    /// Those of the run in hand.
    pub(super) fn current() -> Self {
        Self(current_tract_executor())
    }

    pub(super) fn executor(&self) -> Executor {
        self.0.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match &self.0 {
            Executor::MultiThread(pool) => pool.current_num_threads(),
            _ => 1,
        }
    }

    /// Does work that calls the others of this on one of the threads. The rest stay awake meanwhile, so that they take parts
    /// of it without a wait: a thread that went to sleep comes back after some 50 us, and a layer may be as short.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Executor::MultiThread(pool) = &self.0 else { return work() };
        pool.scope(|scope| {
            // Gone when the work is done, or has panicked.
            let (own, running) = (rayon::current_thread_index(), Arc::new(()));
            let watched = Arc::downgrade(&running);
            scope.spawn_broadcast(move |_, thread| {
                while Some(thread.index()) != own && watched.strong_count() > 0 {
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        std::thread::yield_now();
                    }
                }
            });
            let result = work();
            drop(running);
            result
        })
    }

    /// So many of `items` that each thread has some, but no more than `most`: for a chunk of items that have nothing to do with
    /// one another.
    pub(super) fn share(&self, items: usize, most: usize) -> usize {
        items.div_ceil(self.count()).clamp(1, most)
    }

    /// Calls `work(chunk number, chunk)` for all chunks of `values`, `len` each but for the last.
    ///
    /// What is in a chunk must not depend on how many threads there are, or results would.
    pub(super) fn for_each_chunk<T: Send>(
        &self,
        values: &mut [T],
        len: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        match &self.0 {
            Executor::MultiThread(pool) if values.len() > len => {
                pool.install(|| {
                    let chunks = values.par_chunks_mut(len).enumerate();
                    // One at a time: a thread that falls behind leaves the others something to take.
                    chunks.with_max_len(1).for_each(|(at, chunk)| work(at, chunk));
                });
            }
            _ => values.chunks_mut(len).enumerate().for_each(|(at, chunk)| work(at, chunk)),
        }
    }

    /// As [`Threads::for_each_chunk`], for work that needs scratch memory: `scratch` is called no more often than there are
    /// threads, and what it makes is handed from chunk to chunk as it was left.
    pub(super) fn for_each_chunk_with<T: Send, S: Send>(
        &self,
        values: &mut [T],
        len: usize,
        scratch: impl Fn() -> S + Sync + Send,
        work: impl Fn(usize, &mut [T], &mut S) + Sync + Send,
    ) {
        let spare = Mutex::new(Vec::new());
        let lock = || spare.lock().unwrap_or_else(PoisonError::into_inner);
        self.for_each_chunk(values, len, |at, chunk| {
            let taken = lock().pop();
            let mut own = taken.unwrap_or_else(&scratch);
            work(at, chunk, &mut own);
            lock().push(own);
        });
    }

    /// As [`Threads::for_each_chunk`], for work that is little more than moving the numbers: a thread takes several chunks
    /// at a time, and few numbers are not shared out at all.
    pub(super) fn for_each_item<T: Send>(
        &self,
        values: &mut [T],
        len: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        let at_once = (LIGHT_BYTES / size_of::<T>()).div_ceil(len) * len;
        self.for_each_chunk(values, at_once, |group, values| {
            for (at, chunk) in values.chunks_mut(len).enumerate() {
                work(group * (at_once / len) + at, chunk);
            }
        });
    }
}
