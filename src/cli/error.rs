//! Every error that a person can meet, and the exit code that goes with it.

use std::io;
use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::client::{ClientError, ScreenError};
use crate::engine::EngineError;
use crate::import::ImportError;
use crate::lora::LoraError;
use crate::output::OutputError;
use crate::pipeline::{BlockListError, GateError, ManifestError, PipelineError, RequestError};
use crate::protocol::{ErrorCode, ErrorDetail};
use crate::serve::ServeError;

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag's value is wrong.
    #[error("{0}")]
    Usage(String),
    /// No prompt, and nobody to ask for one.
    #[error(
        "there is no prompt: write it after the command, such as `tintype generate \"a glossy strawberry\"`"
    )]
    NoPrompt,
    /// The default model is nowhere.
    #[error("there is no model: looked for {}; name one with --model or $TINTYPE_MODEL", .0.join(", "))]
    NoModel(Vec<String>),
    /// The model file cannot be used.
    #[error(transparent)]
    Model(#[from] BundleError),
    /// A request that the model cannot serve.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A LoRA that cannot be used with the model.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The picture could not be made.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// What is to be blocked cannot be read.
    #[error(transparent)]
    Block(#[from] BlockListError),
    /// Pictures that are not given out.
    #[error("{0}")]
    Blocked(String),
    /// A picture cannot be made again.
    #[error("{}", path.display())]
    Replay {
        /// The picture's file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// A file carries no request.
    #[error("{} carries no manifest: {reason}", path.display())]
    NoManifest {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// A picture that was made again is another one.
    #[error("{0}")]
    Differs(String),
    /// The state of an unfinished picture cannot be gone on from.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
        /// Whether it is the state of something else.
        foreign: bool,
    },
    /// A component could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The result could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The daemon does not run.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A daemon was asked and gave nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The page for a kiosk is not served.
    #[error(transparent)]
    Screen(#[from] ScreenError),
    /// A job has no picture.
    #[error("job {id}: {}", error.message)]
    Job {
        /// The job.
        id: String,
        /// Why.
        error: ErrorDetail,
    },
    /// A job was cancelled while somebody waited for it.
    #[error("job {0} was cancelled")]
    Cancelled(String),
    /// The folder could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file with tensors is not what it should be.
    #[error("{}: {reason}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Components that compute something else than they should.
    #[error(
        "{0} computes something else here than where the model was made: check the file with `tintype verify`, and report this board"
    )]
    Selftest(String),
    /// Standard output is gone.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

impl CliError {
    /// 1 failed, 2 usage, 3 bad model, 4 busy or unreachable, 5 not enough memory.
    pub fn exit_code(&self) -> u8 {
        if let Some(EngineError::Memory { .. } | EngineError::OutOfMemory { .. }) = self.engine() {
            return 5;
        }
        if let Some(
            EngineError::Layers { .. }
            | EngineError::NoCrossAttention { .. }
            | EngineError::NoDeepFeatures { .. },
        ) = self.engine()
        {
            return 2;
        }
        if let Self::Client(ClientError::Refused(error)) | Self::Job { error, .. } = self {
            return answered(error.code);
        }
        if matches!(self, Self::Pipeline(error) if error.is_bad_scheduler()) {
            return 3;
        }
        match self {
            Self::Lora(LoraError::File(_)) => 3,
            Self::Client(ClientError::Unreachable { .. } | ClientError::Broken(_)) => 4,
            Self::Usage(_)
            | Self::NoPrompt
            | Self::Request(_)
            | Self::Lora(_)
            | Self::Checkpoint { foreign: true, .. }
            | Self::Replay {
                source:
                    ManifestError::Request(_)
                    | ManifestError::Given { .. }
                    | ManifestError::Added { .. }
                    | ManifestError::Between,
                ..
            }
            | Self::Pipeline(
                PipelineError::Request(_)
                | PipelineError::Sampler(_)
                | PipelineError::Gate(GateError::Width { .. }),
            ) => 2,
            Self::Pipeline(error) if error.is_lacking() => 2,
            Self::NoModel(_)
            | Self::Replay { source: ManifestError::Model { .. }, .. }
            | Self::Model(_)
            | Self::Serve(ServeError::Catalogue(_))
            | Self::Engine(
                EngineError::Graph { .. } | EngineError::Node { .. } | EngineError::NoComponent { .. },
            )
            | Self::Pipeline(PipelineError::Engine(_)) => 3,
            Self::Pipeline(_)
            | Self::Engine(_)
            | Self::Output(_)
            | Self::Import(_)
            | Self::Tensors { .. }
            | Self::Read { .. }
            | Self::Selftest(_)
            | Self::Serve(_)
            | Self::Client(_)
            | Self::Screen(_)
            | Self::Job { .. }
            | Self::Cancelled(_)
            | Self::Block(_)
            | Self::Blocked(_)
            | Self::Replay { .. }
            | Self::NoManifest { .. }
            | Self::Differs(_)
            | Self::Checkpoint { .. }
            | Self::Stdout(_) => 1,
        }
    }

    fn engine(&self) -> Option<&EngineError> {
        match self {
            Self::Engine(error) => Some(error),
            Self::Pipeline(error) => error.engine(),
            _ => None,
        }
    }
}

/// The exit code for what a daemon answered.
fn answered(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::BadRequest
        | ErrorCode::TooLarge
        | ErrorCode::UnsupportedSize
        | ErrorCode::PromptTooLong
        | ErrorCode::InvalidValue
        | ErrorCode::IdempotencyMismatch => 2,
        ErrorCode::ModelCorrupt => 3,
        ErrorCode::QueueFull
        | ErrorCode::TooManyConnections
        | ErrorCode::Thermal
        | ErrorCode::Draining
        | ErrorCode::NoSpace => 4,
        ErrorCode::InsufficientMemory => 5,
        ErrorCode::PeerDenied
        | ErrorCode::NotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Timeout
        | ErrorCode::Blocked
        | ErrorCode::CrashedRepeatedly
        | ErrorCode::Internal => 1,
    }
}
