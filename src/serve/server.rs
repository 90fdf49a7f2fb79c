//! The event loop: who may connect, for how long, and when it all ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sd_notify::NotifyState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::peers::{Peers, Place, is_master};
use super::queue::Uid;
use super::routes;
use super::socket::Socket;
use super::{Daemon, Limits, ServeError};
use crate::protocol::{ErrorBody, ErrorCode, ErrorDetail};

/// hyper's smallest buffer for a head, in bytes.
const HEADER_BYTES_MIN: usize = 8192;
/// Threads for what may wait for the disk.
const BLOCKING_THREADS: usize = 8;
/// How often jobs are looked at whose time may be over.
const EXPIRY: Duration = Duration::from_millis(250);
/// How often a daemon that is stopping looks whether it can.
const STOPPING: Duration = Duration::from_millis(20);
/// The time for last words on connections that are open when the daemon stops.
const FAREWELL: Duration = Duration::from_millis(300);
/// How many refused connections at a time are waited for until they have read why.
const REFUSALS: usize = 32;
/// How long each of them is waited for.
const REFUSAL: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, and then until the compute thread has ended.
///
/// # Errors
/// [`ServeError::System`], before the first connection is accepted.
pub fn run(daemon: &Arc<Daemon>, socket: Socket, worker: &JoinHandle<()>) -> Result<(), ServeError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let runtime = runtime.map_err(ServeError::System)?;
    let result = runtime.block_on(serve(daemon, &socket, worker));
    runtime.shutdown_timeout(FAREWELL);
    result.map_err(ServeError::System)
}

async fn serve(daemon: &Arc<Daemon>, socket: &Socket, worker: &JoinHandle<()>) -> std::io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    tokio::spawn(accept(listener, daemon.clone()));
    tokio::spawn(expire(daemon.clone()));
    tokio::spawn(watch_over(daemon.clone()));
    tell(NotifyState::Ready);
    log::info!("listening, {} ms after the start", daemon.begun.elapsed().as_millis());

    any(&mut signals).await;
    tell(NotifyState::Stopping);
    log::info!("stopping: the picture in hand has {} s to be finished", daemon.settings.drain.as_secs());
    daemon.desk.drain();
    let end = Instant::now() + daemon.settings.drain;
    while !worker.is_finished() && Instant::now() < end {
        if timeout(STOPPING, any(&mut signals)).await.is_ok() {
            break;
        }
    }
    while !worker.is_finished() {
        daemon.desk.stop();
        sleep(STOPPING).await;
    }
    sleep(FAREWELL).await;
    Ok(())
}

/// Waits for one of the signals.
async fn any([first, second]: &mut [Signal; 2]) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// Tells the service manager, if there is one.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("the service manager cannot be told: {error}");
    }
}

/// Feeds the service manager's watchdog as long as the compute thread advances.
async fn watch_over(daemon: Arc<Daemon>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut before = None;
    loop {
        let beats = Some(daemon.desk.pulse().beats());
        if beats != before {
            tell(NotifyState::Watchdog);
            before = beats;
        }
        sleep(limit / 4).await;
    }
}

/// Ends jobs whose time is over.
async fn expire(daemon: Arc<Daemon>) {
    loop {
        sleep(EXPIRY).await;
        let daemon = daemon.clone();
        if tokio::task::spawn_blocking(move || daemon.desk.expire()).await.is_err() {
            log::error!("jobs whose time is over could not be ended");
        }
    }
}

async fn accept(listener: UnixListener, daemon: Arc<Daemon>) {
    let limits = &daemon.settings.limits;
    let peers = Peers::new(limits.connections, limits.connections_per_uid);
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: they come back when connections end.
                log::warn!("cannot accept a connection: {error}");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else { continue };
        let refusal = match (daemon.may_ask(uid), peers.place(uid)) {
            (true, Some(place)) => {
                tokio::spawn(connection(stream, uid, place, daemon.clone(), peers.clone()));
                continue;
            }
            (true, None) => {
                let message = format!(
                    "there are too many connections: at most {} of one user, {} in all",
                    limits.connections_per_uid, limits.connections
                );
                ErrorDetail::new(ErrorCode::TooManyConnections, message).retry_after(1000)
            }
            (false, _) => {
                ErrorDetail::new(ErrorCode::PeerDenied, format!("user {uid} may not ask this daemon"))
            }
        };
        // Without a permit it is closed at once: what floods the socket is not worth a descriptor.
        if let Ok(permit) = refusals.clone().try_acquire_owned() {
            tokio::spawn(async move {
                let _ = timeout(REFUSAL, refuse(stream, refusal)).await;
                drop(permit);
            });
        }
    }
}

impl Daemon {
    /// Whether a user may ask for anything.
    fn may_ask(&self, uid: Uid) -> bool {
        self.settings.allowed.is_empty() || self.settings.allowed.contains(&uid) || is_master(uid)
    }
}

/// Serves one connection until it ends.
async fn connection(mut stream: UnixStream, uid: Uid, place: Place, daemon: Arc<Daemon>, peers: Arc<Peers>) {
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        routes::answer(daemon.clone(), peers.clone(), uid, request)
    });
    let ended = builder(&daemon.settings.limits).serve_connection(TokioIo::new(&mut stream), service).await;
    match ended {
        Err(error) if error.is_timeout() && !asked.load(Ordering::Relaxed) => {
            let limit = daemon.settings.limits.header_time.as_secs_f64();
            let message = format!("the head of the request was not there within {limit} s");
            let refusal = refuse(stream, ErrorDetail::new(ErrorCode::Timeout, message));
            let _ = timeout(REFUSAL, refusal).await;
        }
        Err(error) => log::debug!("a connection of user {uid} broke: {error}"),
        Ok(()) => {}
    }
    drop(place);
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder.header_read_timeout(limits.header_time);
    builder.max_buf_size(limits.header_bytes.max(HEADER_BYTES_MIN));
    builder
}

/// Answers a connection without reading its request, and waits until it has read the answer.
async fn refuse(mut stream: UnixStream, detail: ErrorDetail) -> std::io::Result<()> {
    let status = hyper::StatusCode::from_u16(detail.code.status()).unwrap_or_default();
    let body = serde_json::to_string(&ErrorBody { error: detail }).expect("an error has string keys");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}
