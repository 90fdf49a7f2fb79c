//! The page for a kiosk's screen, served to the browser on the same machine.
//!
//! A process of its own, so that the daemon needs no network: it serves one page, and hands what the page asks for on to
//! the daemon's socket. Only requests for this very address are answered, and only those that the page itself makes: a
//! page from elsewhere cannot draw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::call;
use crate::protocol::{ErrorBody, ErrorCode, ErrorDetail};

const PAGE: &str = include_str!("screen.html");
/// The page has all in itself, and talks to nobody else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const HEADER_TIME: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 64 << 10;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// The address is not this machine's own.
    #[error(
        "{address} can be reached from elsewhere: give an address of this machine alone, such as 127.0.0.1:8080"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// The page's server.
#[derive(Debug)]
pub struct Screen {
    socket: PathBuf,
    address: SocketAddr,
}

impl Screen {
    /// Serves the page at `address`, for the daemon at `socket`, until the process ends; `ready` is told the address.
    ///
    /// # Errors
    /// [`ScreenError`], before anything is served.
    pub fn serve(
        socket: PathBuf,
        address: SocketAddr,
        ready: impl FnOnce(SocketAddr),
    ) -> Result<(), ScreenError> {
        if !address.ip().is_loopback() {
            return Err(ScreenError::Open { address });
        }
        let failed = |source| ScreenError::Listen { address, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            ready(address);
            Arc::new(Self { socket, address }).accept(listener).await;
            Ok(())
        })
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let screen = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| screen.answer(request));
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
                if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                    log::debug!("a browser's connection broke: {error}");
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if let Err(reason) = self.check(&request) {
            return Ok(refusal(ErrorCode::PeerDenied, reason));
        }
        let is_get = request.method() == Method::GET;
        Ok(match path.as_str() {
            "/" if is_get => page(),
            path if path.starts_with("/v1/") => self.forward(request, path).await,
            _ => refusal(ErrorCode::NotFound, "there is nothing here but the page at /"),
        })
    }

    /// Whether the browser means this server, and the request comes from its page.
    fn check(&self, request: &Request<Incoming>) -> Result<(), &'static str> {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let names = [self.address.to_string(), format!("localhost:{}", self.address.port())];
        if !header(HOST).is_some_and(|host| names.iter().any(|name| name == host)) {
            return Err("the page is at the address that was given to --listen, and under no other name");
        }
        let own = |origin: &str| names.iter().any(|name| origin.strip_prefix("http://") == Some(name));
        match header(ORIGIN) {
            Some(origin) if !own(origin) => Err("another page may not ask for pictures"),
            None if request.method() != Method::GET => Err("only the page itself may ask for pictures"),
            _ => Ok(()),
        }
    }

    /// Hands a request on to the daemon.
    async fn forward(&self, request: Request<Incoming>, path: &str) -> Answer {
        let method = request.method().clone();
        let key =
            request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        let Ok(body) = Limited::new(request.into_body(), BODY_BYTES).collect().await else {
            return refusal(ErrorCode::TooLarge, "the request is too long");
        };
        let key = key.as_deref().map(|key| ("idempotency-key", key));
        match call::call(&self.socket, method, path, key, body.to_bytes()).await {
            Ok(answer) => answer.map(http_body_util::BodyExt::boxed),
            Err(error) => refusal(ErrorCode::Draining, &crate::error::chain(&error)),
        }
    }
}

fn page() -> Answer {
    let mut answer = whole(PAGE);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn refusal(code: ErrorCode, message: &str) -> Answer {
    let body = ErrorBody { error: ErrorDetail::new(code, message) };
    let mut answer = whole(serde_json::to_string(&body).expect("an error has string keys"));
    *answer.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn whole(text: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed())
}
