//! Every error that a person can meet, and the exit code that goes with it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::engine::EngineError;
use crate::import::ImportError;
use crate::output::OutputError;
use crate::pipeline::{PipelineError, RequestError};

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A flag's value is wrong.
    #[error("{0}")]
    Usage(String),
    /// No prompt, and nobody to ask for one.
    #[error(
        "there is no prompt: write it after `generate`, such as `tintype generate \"a glossy strawberry\"`"
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
    /// The picture could not be made.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A component could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The result could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
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
    /// 1 failed, 2 usage, 3 bad model, 5 not enough memory.
    pub fn exit_code(&self) -> u8 {
        if let Some(EngineError::Memory { .. } | EngineError::OutOfMemory { .. }) = self.engine() {
            return 5;
        }
        match self {
            Self::Usage(_)
            | Self::NoPrompt
            | Self::Request(_)
            | Self::Pipeline(PipelineError::Request(_) | PipelineError::Schedule(_)) => 2,
            Self::NoModel(_)
            | Self::Model(_)
            | Self::Engine(
                EngineError::Graph { .. } | EngineError::Node { .. } | EngineError::NoComponent { .. },
            )
            | Self::Pipeline(PipelineError::Scheduler(_) | PipelineError::Engine(_)) => 3,
            Self::Pipeline(_)
            | Self::Engine(_)
            | Self::Output(_)
            | Self::Import(_)
            | Self::Tensors { .. }
            | Self::Read { .. }
            | Self::Selftest(_)
            | Self::Stdout(_) => 1,
        }
    }

    fn engine(&self) -> Option<&EngineError> {
        match self {
            Self::Engine(error) | Self::Pipeline(PipelineError::Engine(error)) => Some(error),
            _ => None,
        }
    }
}

/// `error: what: why: why that`, on one line; a cause that its parent already tells is not repeated.
pub fn chain(error: &CliError) -> String {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        let told = next.to_string();
        if !text.ends_with(&told) {
            text += &format!(": {told}");
        }
        cause = next.source();
    }
    text
}
