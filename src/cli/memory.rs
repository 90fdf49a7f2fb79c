//! The most memory that this process has held, as the kernel counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::{self, Resident, Status};

/// How often memory is looked at; the kernel keeps no peaks of its kinds.
const INTERVAL: Duration = Duration::from_millis(2);

/// Watches memory from its making on.
pub struct Watch {
    stop: Arc<AtomicBool>,
    anon: Arc<AtomicU64>,
    file: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// The peaks of a watch, in bytes; 0 where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peaks {
    /// Anonymous memory: RssAnon + RssShmem.
    pub anon_bytes: u64,
    /// Resident pages of mapped files: RssFile.
    pub file_bytes: u64,
    /// All resident memory, mapped files included, since the process began.
    pub rss_bytes: u64,
}

impl Watch {
    /// Starts to watch.
    pub fn start() -> Self {
        let [anon, file] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let watch = {
            let (stop, anon, file) = (stop.clone(), anon.clone(), file.clone());
            move || {
                let mut status = Status::open();
                while !stop.load(Ordering::Relaxed) {
                    look(status.resident(), &anon, &file);
                    std::thread::sleep(INTERVAL);
                }
            }
        };
        let thread = std::thread::Builder::new().name("memory".into()).spawn(watch).ok();
        Self { stop, anon, file, thread }
    }

    /// Stops, and tells.
    pub fn peaks(mut self) -> Peaks {
        self.end();
        let now = process::resident();
        look(now, &self.anon, &self.file);
        let peak = |highest: &AtomicU64| highest.load(Ordering::Relaxed);
        Peaks { anon_bytes: peak(&self.anon), file_bytes: peak(&self.file), rss_bytes: now.peak_bytes }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A watcher that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Raises the peaks to what is resident now.
fn look(now: Resident, anon: &AtomicU64, file: &AtomicU64) {
    anon.fetch_max(now.anon_bytes, Ordering::Relaxed);
    file.fetch_max(now.file_bytes, Ordering::Relaxed);
}
