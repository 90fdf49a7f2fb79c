//! The most memory that this process has held, as the kernel counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often anonymous memory is looked at; the kernel keeps no peak of it.
const INTERVAL: Duration = Duration::from_millis(2);

/// Watches memory from its making on.
pub struct Watch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// The peaks of a watch, in bytes; 0 where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peaks {
    /// Anonymous memory: RssAnon + RssShmem.
    pub anon_bytes: u64,
    /// All resident memory, mapped files included, since the process began.
    pub rss_bytes: u64,
}

impl Watch {
    /// Starts to watch.
    pub fn start() -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, highest) = (stop.clone(), peak.clone());
        let watch = move || {
            while !stopped.load(Ordering::Relaxed) {
                highest.fetch_max(anon_bytes(), Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
        };
        let thread = std::thread::Builder::new().name("memory".into()).spawn(watch).ok();
        Self { stop, peak, thread }
    }

    /// Stops, and tells.
    pub fn peaks(mut self) -> Peaks {
        self.end();
        let anon_bytes = self.peak.load(Ordering::Relaxed).max(anon_bytes());
        Peaks { anon_bytes, rss_bytes: field(&status(), "VmHWM:") }
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

fn anon_bytes() -> u64 {
    let status = status();
    field(&status, "RssAnon:") + field(&status, "RssShmem:")
}

fn status() -> String {
    std::fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// A line such as `RssAnon:      1234 kB`, in bytes.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
