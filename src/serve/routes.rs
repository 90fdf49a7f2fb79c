//! HTTP requests to calls, results to answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::intake::Submission;
use super::order::{Order, unable};
use super::peers::{Peers, is_master};
use super::queue::Uid;
use super::record::JobId;
use super::waiter::{Awaited, Waiter};
use super::{Daemon, events, metrics};
use crate::pipeline::TextToImage;
use crate::protocol::{ErrorBody, ErrorCode, ErrorDetail, JobRequest, JobState, JobView};

/// A body that is too long is read on this far, so that its sender sees the answer.
const SWALLOW_BYTES: usize = 16 << 20;
/// The longest idempotency key.
const KEY_MAX_BYTES: usize = 128;
/// How long the answer to a cancellation waits for it to take effect.
const CANCEL: Duration = Duration::from_secs(10);

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Who asks whom.
struct Caller {
    daemon: Arc<Daemon>,
    peers: Arc<Peers>,
    uid: Uid,
}

/// Answers one request of a user.
pub async fn answer(
    daemon: Arc<Daemon>,
    peers: Arc<Peers>,
    uid: Uid,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let caller = Caller { daemon, peers, uid };
    Ok(caller.route(request).await.unwrap_or_else(refusal))
}

impl Caller {
    async fn route(&self, request: Request<Incoming>) -> Result<Answer, ErrorDetail> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
        let method = request.method().clone();
        match parts[..] {
            ["v1", "health"] if method == get => Ok(answer_json(StatusCode::OK, &self.health())),
            ["v1", "models"] if method == get => Ok(answer_json(StatusCode::OK, &self.models())),
            ["v1", "metrics"] if method == get => {
                Ok(whole(StatusCode::OK, metrics::MIME, metrics::text(&self.daemon, &self.peers)))
            }
            ["v1", "jobs"] if method == get => Ok(answer_json(StatusCode::OK, &self.jobs())),
            ["v1", "jobs"] if method == post => {
                let view = self.submit(request, None).await?;
                Ok(answer_json(StatusCode::ACCEPTED, &view))
            }
            ["v1", "generate"] if method == post => self.generate(request).await,
            ["v1", "jobs", id] if method == get => Ok(answer_json(StatusCode::OK, &self.job(id)?)),
            ["v1", "jobs", id] if method == delete => {
                let view = self.cancel(id).await?;
                Ok(answer_json(StatusCode::OK, &view))
            }
            ["v1", "jobs", id, "events"] if method == get => self.events(id, request.uri().query()),
            ["v1", "jobs", id, "image"] if method == get => self.image(id).await,
            _ => misrouted(&parts, &path),
        }
    }

    fn health(&self) -> serde_json::Value {
        let (waiting, limits, running) = self.daemon.desk.load();
        json!({
            "status": if self.daemon.desk.is_draining() { "draining" } else { "ok" },
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": u64::try_from(self.daemon.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "queue": { "waiting": waiting, "limit": limits.total, "limit_per_uid": limits.per_user },
            "running": running.as_deref(),
        })
    }

    fn models(&self) -> serde_json::Value {
        let default = self.daemon.catalogue.default_name();
        let models = self.daemon.catalogue.all();
        let models = models.iter().map(|model| {
            let pipeline = model.bundle.pipeline();
            json!({
                "name": model.name,
                "title": pipeline.name,
                "default": model.name == default,
                "hash": model.bundle.model_hash(),
                "kind": pipeline.kind,
                "width": pipeline.default_width_px,
                "height": pipeline.default_height_px,
                "steps": pipeline.default_steps,
                "guidance": pipeline.default_guidance,
            })
        });
        json!({ "models": models.collect::<Vec<_>>() })
    }

    fn jobs(&self) -> serde_json::Value {
        let uid = (!is_master(self.uid)).then_some(self.uid);
        json!({ "jobs": self.daemon.desk.views(uid) })
    }

    /// The name of a job that the caller may see.
    fn own(&self, id: &str) -> Result<JobId, ErrorDetail> {
        let owned = self.daemon.desk.owner(id);
        let seen = owned.filter(|(_, owner)| *owner == self.uid || is_master(self.uid));
        seen.map(|(id, _)| id).ok_or_else(|| missing(id))
    }

    fn job(&self, id: &str) -> Result<JobView, ErrorDetail> {
        self.daemon.desk.view(&self.own(id)?).ok_or_else(|| missing(id))
    }

    /// Takes a job on, and tells who waits for it.
    async fn submit(
        &self,
        request: Request<Incoming>,
        awaited: Option<Awaited>,
    ) -> Result<JobView, ErrorDetail> {
        let key = idempotency_key(&request)?;
        let body = self.read(request).await?;
        let request: JobRequest = serde_json::from_slice(&body).map_err(|error| {
            ErrorDetail::new(ErrorCode::BadRequest, format!("the body is no request for a picture: {error}"))
        })?;
        let (daemon, uid) = (self.daemon.clone(), self.uid);
        let accept = move || {
            let view = daemon.accept(uid, key, request)?;
            if let Some(awaited) = awaited {
                awaited.is(&daemon, JobId::from(view.id.as_str()));
            }
            Ok(view)
        };
        blocking(accept).await?
    }

    /// Takes a job on and answers with its picture; who does not wait for it does not want it.
    async fn generate(&self, request: Request<Incoming>) -> Result<Answer, ErrorDetail> {
        let waiter = Waiter::new(self.daemon.clone());
        let id = self.submit(request, Some(waiter.awaited())).await?.id;
        self.wait(&id).await;
        waiter.served();
        let view = self.daemon.desk.view(&id).ok_or_else(|| missing(&id))?;
        match (view.state, view.error) {
            (JobState::Failed, Some(error)) => Err(error),
            (JobState::Done, _) => self.image(&id).await,
            (JobState::Cancelled, _) => {
                Err(ErrorDetail::new(ErrorCode::NotFound, format!("job {id} was cancelled")))
            }
            _ => Err(missing(&id)),
        }
    }

    /// Waits until a job has ended, or the daemon stops.
    async fn wait(&self, id: &str) {
        if let Some((mut course, _)) = self.daemon.desk.watch(id) {
            // An error says that nothing will change any more.
            let _ = course.wait_for(|course| course.outcome.is_some()).await;
        }
    }

    async fn cancel(&self, id: &str) -> Result<JobView, ErrorDetail> {
        let id = self.own(id)?;
        let (daemon, cancelled) = (self.daemon.clone(), id.clone());
        blocking(move || daemon.desk.cancel(&cancelled)).await??;
        let _ = timeout(CANCEL, self.wait(&id)).await;
        self.daemon.desk.view(&id).ok_or_else(|| missing(&id))
    }

    fn events(&self, id: &str, query: Option<&str>) -> Result<Answer, ErrorDetail> {
        let from = event_number(query)?;
        let (course, steps) = self.daemon.desk.watch(&self.own(id)?).ok_or_else(|| missing(id))?;
        let body = events::stream(course, steps, from);
        let mut answer = Response::new(body.boxed());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        Ok(answer)
    }

    async fn image(&self, id: &str) -> Result<Answer, ErrorDetail> {
        let view = self.job(id)?;
        if view.state != JobState::Done {
            let state = serde_json::to_value(view.state).expect("a state is a word");
            let message =
                format!("there is no picture of job {id}, it is {}", state.as_str().unwrap_or_default());
            return Err(ErrorDetail::new(ErrorCode::NotFound, message));
        }
        let path = self.daemon.store.image(id);
        let bytes = blocking(move || std::fs::read(path)).await?;
        let bytes = bytes.map_err(|error| {
            ErrorDetail::new(ErrorCode::Internal, format!("the picture of job {id} cannot be read: {error}"))
        })?;
        let mut answer = whole(StatusCode::OK, "image/png", bytes);
        if let Ok(name) = HeaderValue::from_str(id) {
            answer.headers_mut().insert("tintype-job", name);
        }
        answer.headers_mut().insert("tintype-seed", HeaderValue::from(view.seed));
        Ok(answer)
    }

    /// The body of a request, if it is not too long and comes in time.
    async fn read(&self, request: Request<Incoming>) -> Result<Bytes, ErrorDetail> {
        let limits = &self.daemon.settings.limits;
        let limit = limits.body_bytes;
        let too_large = || {
            ErrorDetail::new(
                ErrorCode::TooLarge,
                format!("the body has more than {limit} bytes, which is the most"),
            )
        };
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
        let waits = request.headers().contains_key(EXPECT);
        if waits && announced.is_some_and(|len| len > limit as u64) {
            // It is not sent before it is asked for.
            return Err(too_large());
        }
        let body = timeout(limits.body_time, collect(request.into_body(), limit)).await.map_err(|_| {
            let message = format!("the body was not there within {} s", limits.body_time.as_secs_f64());
            ErrorDetail::new(ErrorCode::Timeout, message)
        })?;
        body?.ok_or_else(too_large)
    }
}

/// Why a path is not for this method, or not there.
fn misrouted(parts: &[&str], path: &str) -> Result<Answer, ErrorDetail> {
    let allowed = match parts {
        ["v1", "health" | "models" | "metrics"] | ["v1", "jobs", _, "events" | "image"] => "GET",
        ["v1", "jobs"] => "GET, POST",
        ["v1", "generate"] => "POST",
        ["v1", "jobs", _] => "GET, DELETE",
        _ => return Err(ErrorDetail::new(ErrorCode::NotFound, format!("there is nothing at {path}"))),
    };
    let message = format!("{path} takes only {allowed}");
    let mut answer = refusal(ErrorDetail::new(ErrorCode::MethodNotAllowed, message));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    Ok(answer)
}

/// A body of at most `limit` bytes; of a longer one nothing, when it has been read on for a while.
async fn collect(mut body: Incoming, limit: usize) -> Result<Option<Bytes>, ErrorDetail> {
    let (mut kept, mut seen) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ErrorDetail::new(ErrorCode::BadRequest, format!("the body cannot be read: {error}"))
        })?;
        let Some(data) = frame.data_ref() else { continue };
        seen += data.len();
        if seen > SWALLOW_BYTES {
            break;
        }
        if seen <= limit {
            kept.extend_from_slice(data);
        }
    }
    Ok((seen <= limit).then(|| kept.into()))
}

impl Daemon {
    /// Takes a job on, if the model can draw it and the machine has what it takes.
    fn accept(&self, uid: Uid, key: Option<String>, request: JobRequest) -> Result<JobView, ErrorDetail> {
        let digest = serde_json::to_vec(&request).expect("a request has string keys");
        let digest = blake3::hash(&digest).to_hex()[..32].to_owned();
        let name = request.model.clone().unwrap_or_else(|| self.catalogue.default_name().to_owned());
        let model = self.catalogue.get(&name)?;
        let order = Order::new(request, &name, &model.bundle)?;
        let resources = &self.settings.resources;
        let pipeline = TextToImage::new(model.bundle.clone(), resources.clone());
        pipeline.check(&order.request(&model.bundle, None)?).map_err(|error| unable(&error))?;
        let peak_bytes = model.peak_bytes(order.size(), resources).map_err(|error| unable(&error))?;
        self.settings.reserve.check(peak_bytes, self.store.root())?;
        let prompt = match self.settings.log_prompts {
            true => format!(" prompt={:?}", order.prompt),
            false => String::new(),
        };
        let view = self.desk.accept(Submission { uid, key, digest, order })?;
        log::info!(
            "job={} uid={uid} model={} size={}x{} steps={} seed={}{prompt}",
            view.id,
            view.model,
            view.width,
            view.height,
            view.steps,
            view.seed
        );
        Ok(view)
    }
}

/// Runs what may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ErrorDetail> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ErrorDetail::defect())
}

fn idempotency_key(request: &Request<Incoming>) -> Result<Option<String>, ErrorDetail> {
    let Some(key) = request.headers().get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=KEY_MAX_BYTES).contains(&key.len()));
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        let message = format!("the Idempotency-Key is not 1 to {KEY_MAX_BYTES} visible ASCII characters");
        ErrorDetail::new(ErrorCode::BadRequest, message)
    })
}

/// The number in `from=N`, 0 if there is none.
fn event_number(query: Option<&str>) -> Result<u64, ErrorDetail> {
    let pairs = query.unwrap_or_default().split('&');
    let from = pairs.filter_map(|pair| pair.strip_prefix("from=")).next_back();
    from.map_or(Ok(0), |from| {
        let message = format!("from={from} is no number of an event");
        from.parse().map_err(|_| ErrorDetail::new(ErrorCode::BadRequest, message))
    })
}

fn missing(id: &str) -> ErrorDetail {
    ErrorDetail::new(ErrorCode::NotFound, format!("there is no job `{id}` of yours"))
}

fn whole(status: StatusCode, mime: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(bytes.into()).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(mime));
    answer
}

fn answer_json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(value).expect("answers have string keys");
    bytes.push(b'\n');
    whole(status, "application/json", bytes)
}

fn refusal(error: ErrorDetail) -> Answer {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let retry_after = error.retry_after_ms.map(|milliseconds| milliseconds.div_ceil(1000));
    let closes = matches!(error.code, ErrorCode::TooLarge | ErrorCode::Timeout);
    let mut answer = answer_json(status, &ErrorBody { error });
    let headers = answer.headers_mut();
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_numbers_are_read_or_refused() {
        assert_eq!(event_number(None), Ok(0));
        assert_eq!(event_number(Some("from=7")), Ok(7));
        assert_eq!(event_number(Some("a=b&from=7")), Ok(7));
        for wrong in ["from=", "from=-1", "from=x", "from=99999999999999999999"] {
            assert_eq!(event_number(Some(wrong)).unwrap_err().code, ErrorCode::BadRequest, "{wrong}");
        }
    }

    #[test]
    fn refusals_carry_their_status_and_hints() {
        let detail = ErrorDetail::new(ErrorCode::QueueFull, "16 jobs are waiting already").retry_after(1500);
        let answer = refusal(detail);
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[RETRY_AFTER], "2");
        let answer = misrouted(&["v1", "jobs"], "/v1/jobs").unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()[ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET, POST"))
        );
    }
}
