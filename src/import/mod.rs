//! A model as others publish it -> one bundle.
//!
//! ```text
//! find the networks, read the configuration files                               source, folder, checkpoint
//! for each component, take the ONNX graph over, or build that of its class      part, engine::onnx, architectures
//! one weight at a time: read it, decide how it is stored                        precision, quantise, weight
//! the header follows from that, and the report of what was lost                 report, measure
//! one weight at a time: read it again, quantise, arrange, write                 weight
//! ```
//! It runs once, on any machine. Memory holds one weight at a time beside the graphs, and nothing stands under the
//! target's name before all of it is written.

mod architectures;
mod checkpoint;
mod config_file;
mod family;
mod folder;
mod measure;
mod ours;
mod part;
mod precision;
mod quantise;
mod report;
mod source;
mod vocabulary;
mod weight;

use std::path::{Path, PathBuf};

use crate::bundle::{
    Blob, BundleError, BundleWriter, Component, ComponentEntry, FileEntry, Header, Pipeline, WriteError,
};
use crate::engine::EngineError;
use crate::engine::onnx::OnnxError;
use crate::pipeline::PipelineError;
pub use architectures::ArchitectureError;
use part::{Part, parts};
pub use precision::Precision;
use precision::Role;
pub use report::{ComponentReport, Deviation, Difference, Numbers, Report};
use source::Source;

/// Why a model was not imported. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file of the folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A configuration file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder is no pipeline.
    #[error("{} holds no component: expected folders such as unet/ and text_encoder/ with config.json in them, and beside it model.onnx, as optimum exports it, or weights in safetensors", path.display())]
    NoComponents {
        /// The folder.
        path: PathBuf,
    },
    /// The model that is to have the other components cannot be used.
    #[error("{} names a base, which has to lie where the new model is written", path.display())]
    Base {
        /// The file.
        path: PathBuf,
        /// What is wrong with the base.
        source: BundleError,
    },
    /// A part of a model is to be measured.
    #[error("a model with a base cannot be measured: leave --measure out, and measure the base")]
    MeasureBase,
    /// A graph cannot be taken over.
    #[error("cannot import {component}")]
    Graph {
        /// The component.
        component: Component,
        /// Why.
        source: OnnxError,
    },
    /// A file of weights that is none, or of a model that is not known.
    #[error(transparent)]
    Source(#[from] ArchitectureError),
    /// The network that a configuration describes cannot be built of the weights.
    #[error("cannot import {component}")]
    Network {
        /// The component.
        component: Component,
        /// Why.
        source: ArchitectureError,
    },
    /// A weight whose shape no bundle can hold.
    #[error("a weight of {component} cannot be stored")]
    Tensor {
        /// The component.
        component: Component,
        /// Why.
        source: BundleError,
    },
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What was written to be measured cannot be read.
    #[error("the imported model cannot be read back")]
    Reopen(#[source] BundleError),
    /// A component cannot be run to measure it.
    #[error("cannot measure {component}")]
    Run {
        /// The component.
        component: Component,
        /// Why.
        source: EngineError,
    },
    /// A picture cannot be drawn to measure it.
    #[error("cannot draw a picture to measure the model")]
    Draw(#[from] PipelineError),
}

/// What a UNet predicts, where the source's word is not to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity.
    Velocity,
}

/// How a model is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What most weights are stored as.
    pub precision: Precision,
    /// Whether every component and a whole picture are also run against f32 weights, which takes minutes.
    pub measure: bool,
    /// What the UNet predicts; what the source says, if not given.
    pub prediction: Option<Prediction>,
}

impl From<Precision> for Options {
    fn from(precision: Precision) -> Self {
        Self { precision, measure: false, prediction: None }
    }
}

impl Prediction {
    /// As a scheduler's configuration has it.
    fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
        }
    }
}

/// Imports the folder or file `source` to a bundle at `target`; `progress` is told how many of how many things are done.
///
/// # Errors
/// [`ImportError`]; the target is then as it was.
pub fn import(
    source: &Path,
    target: &Path,
    options: impl Into<Options>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report, ImportError> {
    let options = options.into();
    let source = Source::open(source, options.prediction.map(Prediction::name))?.with_base(beside(target))?;
    if options.measure && source.has_base() {
        return Err(ImportError::MeasureBase);
    }
    let mut parts = parts(&source)?;
    let weights: usize = parts.iter().map(Part::len).sum();
    let times = if options.measure { 5 } else { 2 };
    let mut course = Course { done: 0, total: times * weights, tell: progress };
    let scratch = options.measure.then(|| tempfile::tempdir_in(beside(target))).transpose();
    let scratch = scratch.map_err(|source| unwritable(target, source))?;
    if let Some(scratch) = &scratch {
        decide(&mut parts, &source, Precision::F32, &mut course)?;
        write(&source, &parts, &report(&parts), &scratch.path().join("exact"), &mut course)?;
    }
    decide(&mut parts, &source, options.precision, &mut course)?;
    let mut report = report(&parts);
    if let Some(scratch) = &scratch {
        let [stored, exact] = ["stored", "exact"].map(|name| scratch.path().join(name));
        write(&source, &parts, &report, &stored, &mut course)?;
        measure::measure(&stored, &exact, &mut report)?;
    }
    write(&source, &parts, &report, target, &mut course)?;
    Ok(report)
}

/// What was decided for the weights, before anything is measured.
fn report(parts: &[Part]) -> Report {
    Report { components: parts.iter().map(Part::report).collect(), picture: None }
}

/// Reads every weight once and decides how it is stored.
fn decide(
    parts: &mut [Part],
    source: &Source,
    precision: Precision,
    course: &mut Course,
) -> Result<(), ImportError> {
    for part in parts {
        let roles = Role::of_weights(&part.graph);
        let mut plans = Vec::with_capacity(part.len());
        for at in 0..part.len() {
            let (name, shape) = (part.name(at), part.shape(at));
            let stored = precision.stored(name, &shape, roles[name], source.f16_modules());
            plans.push(weight::Plan::new(&part.read(at)?, shape, stored, source.channel_error_max()));
            course.step();
        }
        part.plans = plans;
    }
    Ok(())
}

/// Writes the bundle, one weight at a time.
fn write(
    source: &Source,
    parts: &[Part],
    report: &Report,
    target: &Path,
    course: &mut Course,
) -> Result<(), ImportError> {
    let mut writer = BundleWriter::create(target, header(source, parts, report)?)?;
    for (name, contents) in source.files() {
        writer.write_file(name, contents)?;
    }
    for part in parts {
        writer.write_graph(part.component, &part.graph_json)?;
    }
    for part in parts {
        for (at, plan) in part.plans.iter().enumerate() {
            plan.write(&mut writer, part.component, part.name(at), &part.read(at)?)?;
            course.step();
        }
    }
    Ok(writer.finish()?)
}

fn header(source: &Source, parts: &[Part], report: &Report) -> Result<Header, ImportError> {
    let file = |(name, contents): (&str, &[u8])| FileEntry {
        name: name.to_owned(),
        blob: Blob::unwritten(contents.len() as u64),
    };
    let component = |(part, network): (&Part, &source::Network)| {
        Ok(ComponentEntry {
            name: part.component,
            config: network.config.clone(),
            graph: Blob::unwritten(part.graph_json.len() as u64),
            tensors: part.entries()?,
        })
    };
    let pipeline = Pipeline { report: Some(report.to_json()), ..source.pipeline() };
    let components = parts.iter().zip(source.networks()).map(component);
    Ok(Header {
        pipeline,
        licences: source.licences(),
        files: source.files().map(file).collect(),
        components: components.collect::<Result<_, ImportError>>()?,
    })
}

/// The folder that a file is in.
fn beside(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unwritable(target: &Path, source: std::io::Error) -> ImportError {
    ImportError::Write(WriteError::Write { path: target.to_owned(), source })
}

/// How far an import has come.
struct Course<'a> {
    done: usize,
    total: usize,
    tell: &'a mut dyn FnMut(usize, usize),
}

impl Course<'_> {
    fn step(&mut self) {
        self.done += 1;
        (self.tell)(self.done, self.total);
    }
}
