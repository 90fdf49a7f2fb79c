//! A folder of ONNX models, as optimum writes it, -> one bundle.
//!
//! ```text
//! read the folder's configuration files                                         folder
//! for each component, take the graph over                                       engine::onnx
//! one weight at a time: read it, decide how it is stored                        precision, quantise, weight
//! the header follows from that, and the report of what was lost                 report, measure
//! one weight at a time: read it again, quantise, arrange, write                 weight
//! ```
//! It runs once, on any machine. Memory holds one weight at a time beside the ONNX graph, and nothing stands under the
//! target's name before all of it is written.

mod family;
mod folder;
mod measure;
mod precision;
mod quantise;
mod report;
mod weight;

use std::path::{Path, PathBuf};

use crate::bundle::{
    Blob, BundleError, BundleWriter, Component, ComponentEntry, FileEntry, Header, Pipeline, TensorEntry,
    WriteError,
};
use crate::engine::EngineError;
use crate::engine::onnx::{self, Constant, Imported, OnnxError};
use crate::pipeline::PipelineError;
use folder::Folder;
pub use precision::Precision;
use precision::Role;
pub use report::{ComponentReport, Deviation, Difference, Numbers, Report};

/// Why a folder was not imported. Nothing was written.
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
    #[error("{} holds no component: expected folders such as unet/ and text_encoder/ with model.onnx and config.json in them, as optimum exports them", path.display())]
    NoComponents {
        /// The folder.
        path: PathBuf,
    },
    /// A graph cannot be taken over.
    #[error("cannot import {component}")]
    Graph {
        /// The component.
        component: Component,
        /// Why.
        source: OnnxError,
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

/// How a folder is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What most weights are stored as.
    pub precision: Precision,
    /// Whether every component and a whole picture are also run against f32 weights, which takes minutes.
    pub measure: bool,
}

impl From<Precision> for Options {
    fn from(precision: Precision) -> Self {
        Self { precision, measure: false }
    }
}

/// A component on its way into the bundle.
struct Part {
    component: Component,
    imported: Imported,
    graph: Vec<u8>,
    weights: Vec<(String, weight::Plan)>,
}

/// Imports the folder `source` to a bundle at `target`; `progress` is told how many of how many things are done.
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
    let folder = Folder::open(source)?;
    let mut parts = parts(&folder)?;
    let weights: usize = parts.iter().map(|part| part.imported.weights.len()).sum();
    let times = if options.measure { 5 } else { 2 };
    let mut course = Course { done: 0, total: times * weights, tell: progress };
    let scratch = options.measure.then(|| tempfile::tempdir_in(beside(target))).transpose();
    let scratch = scratch.map_err(|source| unwritable(target, source))?;
    if let Some(scratch) = &scratch {
        decide(&mut parts, &folder, Precision::F32, &mut course)?;
        write(&folder, &parts, &report(&parts), &scratch.path().join("exact"), &mut course)?;
    }
    decide(&mut parts, &folder, options.precision, &mut course)?;
    let mut report = report(&parts);
    if let Some(scratch) = &scratch {
        let [stored, exact] = ["stored", "exact"].map(|name| scratch.path().join(name));
        write(&folder, &parts, &report, &stored, &mut course)?;
        measure::measure(&stored, &exact, &mut report)?;
    }
    write(&folder, &parts, &report, target, &mut course)?;
    Ok(report)
}

/// Takes the graphs over; no weight is read yet.
fn parts(folder: &Folder) -> Result<Vec<Part>, ImportError> {
    let part = |&component: &Component| {
        let size = |name: &str, at: usize| folder.analysis_size(component, name, at);
        let imported = onnx::import(&folder.graph_file(component), &size)
            .map_err(|source| ImportError::Graph { component, source })?;
        let graph = serde_json::to_vec(&imported.graph).expect("a graph has string keys and finite numbers");
        Ok(Part { component, imported, graph, weights: Vec::new() })
    };
    folder.components().iter().map(part).collect()
}

/// What was decided for the weights, before anything is measured.
fn report(parts: &[Part]) -> Report {
    Report { components: parts.iter().map(Part::report).collect(), picture: None }
}

/// Reads every weight once and decides how it is stored.
fn decide(
    parts: &mut [Part],
    folder: &Folder,
    precision: Precision,
    course: &mut Course,
) -> Result<(), ImportError> {
    for part in parts {
        let roles = Role::of_weights(&part.imported.graph);
        let mut weights = Vec::with_capacity(part.imported.weights.len());
        for (name, constant) in &part.imported.weights {
            let stored = precision.stored(name, &constant.shape(), roles[name], folder.f16_modules());
            let values = part.read(name, constant)?;
            let plan = weight::Plan::new(&values, constant.shape(), stored, folder.channel_error_max());
            weights.push((name.clone(), plan));
            course.step();
        }
        part.weights = weights;
    }
    Ok(())
}

/// Writes the bundle, one weight at a time.
fn write(
    folder: &Folder,
    parts: &[Part],
    report: &Report,
    target: &Path,
    course: &mut Course,
) -> Result<(), ImportError> {
    let mut writer = BundleWriter::create(target, header(folder, parts, report)?)?;
    for (name, contents) in folder.files() {
        writer.write_file(name, contents)?;
    }
    for part in parts {
        writer.write_graph(part.component, &part.graph)?;
    }
    for part in parts {
        for ((name, constant), (_, plan)) in part.imported.weights.iter().zip(&part.weights) {
            plan.write(&mut writer, part.component, name, &part.read(name, constant)?)?;
            course.step();
        }
    }
    Ok(writer.finish()?)
}

fn header(folder: &Folder, parts: &[Part], report: &Report) -> Result<Header, ImportError> {
    let file = |(name, contents): (&str, &[u8])| FileEntry {
        name: name.to_owned(),
        blob: Blob::unwritten(contents.len() as u64),
    };
    let component = |part: &Part| {
        Ok(ComponentEntry {
            name: part.component,
            config: folder.config(part.component).clone(),
            graph: Blob::unwritten(part.graph.len() as u64),
            tensors: part.entries()?,
        })
    };
    let pipeline = Pipeline { report: Some(report.to_json()), ..folder.pipeline() };
    let components = parts.iter().map(component).collect::<Result<_, ImportError>>()?;
    Ok(Header {
        pipeline,
        licences: folder.licences(),
        files: folder.files().map(file).collect(),
        components,
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

impl Part {
    fn read(&self, name: &str, constant: &Constant) -> Result<Vec<f32>, ImportError> {
        let component = self.component;
        constant
            .read(name, &self.imported.initialisers)
            .map_err(|source| ImportError::Graph { component, source })
    }

    fn entries(&self) -> Result<Vec<TensorEntry>, ImportError> {
        let component = self.component;
        let refused = |source| ImportError::Tensor { component, source };
        self.weights.iter().map(|(name, plan)| plan.entry(component, name).map_err(refused)).collect()
    }

    fn report(&self) -> ComponentReport {
        let (mut numbers, mut weights) = (Numbers::default(), Deviation::default());
        for (_, plan) in &self.weights {
            numbers.add(plan.dtype(), plan.count());
            weights.merge(&plan.error);
        }
        ComponentReport {
            component: self.component.name(),
            operations: self.imported.graph.nodes.len(),
            numbers,
            weights: weights.difference(),
            output: None,
        }
    }
}
