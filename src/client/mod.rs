//! The other end of the socket: calls of the daemon, and the page for a kiosk's screen that makes them.

mod call;
mod screen;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Response};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::protocol::{ErrorBody, ErrorDetail, Event, EventLine, JobRequest, JobView};

pub use screen::{Screen, ScreenError};

/// How long a lost connection to a daemon that may be starting anew is tried again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often.
const INTERVAL: Duration = Duration::from_millis(500);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no daemon answers at {}: start one with `tintype serve`, or name its socket with --socket", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke, or what came over it is no HTTP.
    #[error("the connection to the daemon broke")]
    Broken(#[source] hyper::Error),
    /// The daemon refused.
    #[error("{}", .0.message)]
    Refused(ErrorDetail),
    /// The daemon answered something else than it should: it is another version, or something else.
    #[error("the daemon's answer is not understood: is it the same version? ({0})")]
    Answer(String),
    /// The system gives no event loop.
    #[error("the system does not give what a client takes")]
    System(#[source] io::Error),
}

/// Calls a daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the daemon at `socket`; nothing is connected yet.
    ///
    /// # Errors
    /// [`ClientError::System`].
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { socket: socket.to_owned(), runtime: runtime.map_err(ClientError::System)? })
    }

    /// Hands a job in; under the same `key`, the same request is the same job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn submit(&self, request: &JobRequest, key: Option<&str>) -> Result<JobView, ClientError> {
        let body = serde_json::to_vec(request).expect("a request has string keys");
        self.json(Method::POST, "/v1/jobs", key, body)
    }

    /// A job as it stands.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn job(&self, id: &str) -> Result<JobView, ClientError> {
        self.json(Method::GET, &format!("/v1/jobs/{}", segment(id)), None, Vec::new())
    }

    /// What the daemon says at `path`: its health, its models, its jobs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<serde_json::Value, ClientError> {
        self.json(Method::GET, path, None, Vec::new())
    }

    /// Cancels a job; as it stands then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cancel(&self, id: &str) -> Result<JobView, ClientError> {
        self.json(Method::DELETE, &format!("/v1/jobs/{}", segment(id)), None, Vec::new())
    }

    /// The picture of a job, as a PNG file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn image(&self, id: &str) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/jobs/{}/image", segment(id));
        self.runtime.block_on(async {
            let answer = self.call(Method::GET, &path, None, Vec::new()).await?;
            Ok(answer.into_body().collect().await.map_err(ClientError::Broken)?.to_bytes().to_vec())
        })
    }

    /// Calls `tell` with every event of a job; the last one. A daemon that starts anew meanwhile is waited for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn watch(&self, id: &str, mut tell: impl FnMut(&EventLine)) -> Result<Event, ClientError> {
        let (mut from, mut waited) = (0, Duration::ZERO);
        loop {
            let followed = self.runtime.block_on(self.follow(id, &mut from, &mut tell));
            match followed {
                Ok(Some(end)) => return Ok(end),
                Err(error @ (ClientError::Refused(_) | ClientError::Answer(_))) => return Err(error),
                Err(error) if waited >= PATIENCE => return Err(error),
                Ok(None) | Err(_) => {}
            }
            std::thread::sleep(INTERVAL);
            waited += INTERVAL;
        }
    }

    /// Reads events until the last one, or until the connection ends.
    async fn follow(
        &self,
        id: &str,
        from: &mut u64,
        tell: &mut impl FnMut(&EventLine),
    ) -> Result<Option<Event>, ClientError> {
        let path = format!("/v1/jobs/{}/events?from={from}", segment(id));
        let mut body = self.call(Method::GET, &path, None, Vec::new()).await?.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Ok(None) };
            text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let line: EventLine =
                    serde_json::from_slice(&line).map_err(|error| ClientError::Answer(error.to_string()))?;
                *from = line.n.saturating_add(1);
                tell(&line);
                if line.event.is_terminal() {
                    return Ok(Some(line.event));
                }
            }
        }
        Ok(None)
    }

    fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            let answer = self.call(method, path, key, body).await?;
            let bytes = answer.into_body().collect().await.map_err(ClientError::Broken)?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer(error.to_string()))
        })
    }

    /// An answer that is a success.
    async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let headers = key.map(|key| ("idempotency-key", key));
        let answer = call::call(&self.socket, method, path, headers, body).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map_err(ClientError::Broken)?.to_bytes();
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Err(ClientError::Refused(body.error)),
            Err(_) => Err(ClientError::Answer(format!("HTTP status {status}"))),
        }
    }
}

/// A name as one part of a path: what would end the part is left out, and then there is no such job.
fn segment(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric()).collect()
}
