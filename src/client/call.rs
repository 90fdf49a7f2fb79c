//! One HTTP request over a Unix socket.

use std::path::Path;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::ClientError;

/// Sends a request on a connection of its own; the answer's body comes as it is read.
///
/// # Errors
/// [`ClientError::Unreachable`], [`ClientError::Broken`].
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    header: Option<(&'static str, &str)>,
    body: impl Into<Bytes>,
) -> Result<Response<Incoming>, ClientError> {
    let unreachable = |source| ClientError::Unreachable { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
    tokio::spawn(async move {
        // Whoever reads the answer meets the same error there.
        let _ = connection.await;
    });
    let mut request = Request::builder().method(method).uri(path).header(HOST, "tintype");
    request = request.header(CONTENT_TYPE, "application/json");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(body.into()));
    let request =
        request.map_err(|error| ClientError::Answer(format!("the request cannot be made: {error}")))?;
    sender.send_request(request).await.map_err(ClientError::Broken)
}
