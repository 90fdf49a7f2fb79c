//! What goes over the socket, as JSON: requests, states of jobs, events, errors. `docs/protocol.md` describes it.

use serde::{Deserialize, Serialize};

/// The largest number that JSON readers of every language hold exactly.
pub const SEED_MAX: u64 = (1 << 53) - 1;

/// A request for a picture. What is left out is the model's own choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// What to draw; empty means no condition.
    pub prompt: String,
    /// What to stay away from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub negative: String,
    /// The model's name, as `GET /v1/models` lists it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// In pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// In pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Steps of the sampler, 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// How strictly to follow the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// The seed, up to [`SEED_MAX`]; a random one if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// When the picture has to be there, in milliseconds from the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether events carry previews.
    #[serde(default)]
    pub preview: PreviewMode,
}

/// Whether events carry previews.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewMode {
    /// They do not.
    #[default]
    None,
    /// After every step, one pixel for each latent cell.
    Inline,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits.
    Queued,
    /// It is being drawn.
    Running,
    /// There is a picture.
    Done,
    /// There will be none.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: JobState,
    /// While it waits: how many jobs come before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Until it is there, in milliseconds, if the model's speed has been measured; null if not.
    pub eta_ms: Option<u64>,
    /// Steps that are done.
    pub step: usize,
    /// Steps of the sampler.
    pub steps: usize,
    /// The model.
    pub model: String,
    /// The seed.
    pub seed: u64,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// When it was accepted, in milliseconds since 1970.
    pub created_ms: u64,
    /// Of a picture: its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of a failure: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
}

/// One line of `GET /v1/jobs/{id}/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// The event's number; a heartbeat has that of the event before it.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step is done.
    Progress {
        /// Steps that are done.
        step: usize,
        /// Of so many.
        steps: usize,
    },
    /// What the picture looks like so far.
    Preview {
        /// `image/png`.
        mime: String,
        /// The picture in base64.
        b64: String,
    },
    /// Nothing: the connection is alive.
    Heartbeat,
    /// There is a picture.
    Done {
        /// Its SHA-256.
        sha256: String,
    },
    /// There will be none.
    Failed {
        /// Why.
        error: ErrorDetail,
    },
    /// Somebody did not want it any more.
    Cancelled,
}

impl Event {
    /// Whether no event follows.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. } | Self::Cancelled)
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// When to try again, if that makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What would be possible in the time that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

impl ErrorDetail {
    /// Without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, offer: None }
    }

    /// What whoever asked cannot do anything about.
    pub fn defect() -> Self {
        Self::new(ErrorCode::Internal, "the daemon has a defect: its log says more")
    }

    /// With a hint when to try again.
    pub fn retry_after(self, milliseconds: u64) -> Self {
        Self { retry_after_ms: Some(milliseconds), ..self }
    }
}

/// What would be possible: fewer steps, or the size given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The steps that would be done in time.
    pub steps: usize,
    /// At this width in pixels.
    pub width: usize,
    /// At this height in pixels.
    pub height: usize,
}

/// The codes of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the words of the protocol, which docs/protocol.md explains")]
pub enum ErrorCode {
    BadRequest,
    PeerDenied,
    NotFound,
    MethodNotAllowed,
    Timeout,
    IdempotencyMismatch,
    TooLarge,
    UnsupportedSize,
    PromptTooLong,
    InvalidValue,
    QueueFull,
    TooManyConnections,
    InsufficientMemory,
    Thermal,
    Draining,
    ModelCorrupt,
    NoSpace,
    CrashedRepeatedly,
    Blocked,
    Internal,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::PeerDenied,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::IdempotencyMismatch,
        Self::TooLarge,
        Self::UnsupportedSize,
        Self::PromptTooLong,
        Self::InvalidValue,
        Self::QueueFull,
        Self::TooManyConnections,
        Self::InsufficientMemory,
        Self::Thermal,
        Self::Draining,
        Self::ModelCorrupt,
        Self::NoSpace,
        Self::CrashedRepeatedly,
        Self::Blocked,
        Self::Internal,
    ];

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::PeerDenied => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::IdempotencyMismatch => 409,
            Self::TooLarge => 413,
            Self::UnsupportedSize | Self::PromptTooLong | Self::InvalidValue | Self::Blocked => 422,
            Self::QueueFull | Self::TooManyConnections => 429,
            Self::CrashedRepeatedly | Self::Internal => 500,
            Self::InsufficientMemory | Self::Thermal | Self::Draining | Self::ModelCorrupt => 503,
            Self::NoSpace => 507,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_leave_out_what_is_the_models_choice() {
        let request: JobRequest = serde_json::from_str(r#"{"prompt":"a cat","preview":"inline"}"#).unwrap();
        assert_eq!(request.preview, PreviewMode::Inline);
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"prompt":"a cat","preview":"inline"}"#);
        let wrong =
            [r#"{"prompt":"a","cfg":1}"#, r#"{"prompt":1}"#, "{}", r#"{"steps":-1}"#, r#"{"preview":"big"}"#];
        for text in wrong {
            assert!(serde_json::from_str::<JobRequest>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn events_are_one_flat_object() {
        let line = EventLine { n: 4, event: Event::Progress { step: 2, steps: 8 } };
        let text = r#"{"n":4,"event":"progress","step":2,"steps":8}"#;
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        assert_eq!(serde_json::from_str::<EventLine>(text).unwrap(), line);
    }

    #[test]
    fn all_codes_are_listed() {
        let mut codes = ErrorCode::ALL.to_vec();
        codes.dedup();
        assert_eq!(codes.len(), 20);
        assert_eq!(codes.last(), Some(&ErrorCode::Internal), "Internal is the last of the enumeration");
        assert_eq!(serde_json::to_string(&ErrorCode::PromptTooLong).unwrap(), r#""prompt_too_long""#);
    }
}
