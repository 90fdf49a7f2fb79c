//! The daemon: pictures for whoever asks over a local socket, for years, through power cuts.
//!
//! ```text
//! socket -> server (who may, how many) -> routes (HTTP to calls) -> desk -> worker (the compute thread)
//!                                                                    |         |
//!                                                        ledger: journal, store (the state folder)
//! ```
//! One thread serves the socket and one computes. A job is on disk before its sender is told that it was accepted, and so
//! is its end before anybody is told of it; in between it can be drawn again, from the step that was kept last.
//!
//! What may be asked for, and what the answers mean, stands in `docs/protocol.md`.

mod admission;
mod book;
mod catalogue;
mod desk;
mod events;
mod intake;
mod job;
mod journal;
mod ledger;
mod metrics;
mod order;
mod peers;
mod queue;
mod record;
mod routes;
mod server;
mod socket;
mod speed;
mod store;
mod waiter;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Resources;
use crate::pipeline::BlockList;

pub use admission::Reserve;
pub use catalogue::CatalogueError;
pub use journal::JournalError;
pub use queue::{CAPACITY as QUEUE_CAPACITY, QueueLimits, Uid};
pub use socket::SocketError;
pub use store::StoreError;

use catalogue::Catalogue;
use desk::Desk;
use ledger::Ledger;
use speed::Speeds;
use store::Store;

/// How the daemon is to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The socket's path; not read if the system hands a socket over.
    pub socket: PathBuf,
    /// The folder with models.
    pub models: PathBuf,
    /// The folder for what outlives the daemon.
    pub state: PathBuf,
    /// The model for requests that name none.
    pub default_model: Option<String>,
    /// Threads and memory of a picture.
    pub resources: Resources,
    /// What clients may take.
    pub limits: Limits,
    /// What is left to the rest of the machine.
    pub reserve: Reserve,
    /// What is kept of finished jobs.
    pub keep: Keep,
    /// Who may ask beside the daemon's own user and root; everybody who can open the socket if empty.
    pub allowed: Vec<Uid>,
    /// How long the job in hand may go on after SIGTERM before it is laid aside.
    pub drain: Duration,
    /// How often the state of a picture is kept.
    pub save_every: Duration,
    /// What may not be drawn.
    pub block: Option<BlockList>,
    /// Whether prompts appear in the log.
    pub log_prompts: bool,
}

/// What clients may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest body of a request, in bytes.
    pub body_bytes: usize,
    /// The longest head of a request, in bytes.
    pub header_bytes: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one user at a time.
    pub connections_per_uid: usize,
    /// The time that a head may take.
    pub header_time: Duration,
    /// The time that a body may take.
    pub body_time: Duration,
    /// Jobs that may wait.
    pub queue: QueueLimits,
}

/// What is kept of jobs that have ended: the youngest, as many as both limits allow.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Jobs.
    pub jobs: usize,
    /// Bytes of pictures.
    pub bytes: u64,
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is nothing to draw with.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The socket cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system gives no thread, or no event loop.
    #[error("the system does not give what a daemon takes")]
    System(#[source] std::io::Error),
}

/// All that the daemon's threads share.
struct Daemon {
    settings: Settings,
    catalogue: Catalogue,
    store: Arc<Store>,
    desk: Desk,
    begun: Instant,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`], before the first request is answered.
pub fn serve(settings: Settings) -> Result<(), ServeError> {
    let begun = Instant::now();
    let catalogue = Catalogue::open(&settings.models, settings.default_model.as_deref())?;
    let store = Arc::new(Store::open(&settings.state)?);
    let (ledger, jobs) = Ledger::open(store.clone())?;
    let speeds = Speeds::load(&store.speeds());
    let desk = Desk::open(ledger, jobs, settings.limits.queue, settings.keep, speeds)?;
    let socket = socket::listen(&settings.socket)?;
    let daemon = Arc::new(Daemon { settings, catalogue, store, desk, begun });
    let worker = {
        let daemon = daemon.clone();
        std::thread::Builder::new().name("compute".into()).spawn(move || worker::work(&daemon))
    };
    let worker = worker.map_err(ServeError::System)?;
    server::run(&daemon, socket, &worker)?;
    if worker.join().is_err() {
        log::error!("the compute thread panicked");
    }
    daemon.desk.speeds().save(&daemon.store.speeds());
    Ok(())
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
