//! A folder of ONNX models, as optimum writes it, -> one bundle.
//!
//! ```text
//! read the folder's configuration files                       folder
//! for each component: take the graph over, decide how each weight is stored     engine::onnx, precision
//! the header follows from that; then, one weight at a time:
//!     read, quantise, arrange, write                          quantise
//! ```
//! It runs once, on any machine. Memory holds one weight at a time beside the ONNX file itself, and nothing
//! stands under the target's name before all of it is written.

mod folder;
mod precision;
mod quantise;

use std::path::{Path, PathBuf};

use crate::bundle::{
    self, Blob, BundleError, BundleWriter, Component, ComponentEntry, Dtype, FileEntry, Header, Layout,
    Scales, TensorEntry, Values, WriteError, pack_o8k4, pack_o8k4_scales,
};
use crate::engine::onnx::{self, Constant, Imported, OnnxError};
use folder::Folder;
pub use precision::Precision;
use precision::{Role, Stored};

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
}

/// What an import did, for the person who asked for it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// One entry for each component.
    pub components: Vec<ComponentReport>,
}

/// What became of one component.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ComponentReport {
    /// Which one.
    pub component: &'static str,
    /// Operations in its graph.
    pub operations: usize,
    /// Its weights, counted in numbers, by how they are stored.
    pub numbers: Numbers,
    /// Relative L2 error of all weights that were quantised to int8, 0 if none was.
    pub int8_weight_error: f64,
}

/// Counts of numbers by their type.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Numbers {
    /// Stored as int8.
    pub i8: usize,
    /// Stored as f16.
    pub f16: usize,
    /// Stored as f32.
    pub f32: usize,
}

/// A component on its way into the bundle.
struct Part {
    component: Component,
    imported: Imported,
    graph: Vec<u8>,
    stored: Vec<Stored>,
}

/// Imports the folder `source` to a bundle at `target`, most weights as `precision`; `progress` is told, for
/// each weight, how many of how many are done.
///
/// # Errors
/// [`ImportError`]; the target is then as it was.
pub fn import(
    source: &Path,
    target: &Path,
    precision: Precision,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report, ImportError> {
    let folder = Folder::open(source)?;
    let parts =
        folder.components().iter().map(|&c| part(&folder, c, precision)).collect::<Result<Vec<_>, _>>()?;
    let mut reports = parts.iter().map(Part::report).collect::<Vec<_>>();
    let header = header(&folder, &parts)?;
    let mut writer = BundleWriter::create(target, header)?;
    for (name, contents) in folder.files() {
        writer.write_file(name, contents)?;
    }
    for part in &parts {
        writer.write_graph(part.component, &part.graph)?;
    }
    let total = parts.iter().map(|part| part.imported.weights.len()).sum();
    let mut done = 0;
    for (part, report) in parts.iter().zip(&mut reports) {
        let mut error = quantise::Error::default();
        for ((name, constant), stored) in part.imported.weights.iter().zip(&part.stored) {
            write_weight(&mut writer, part, name, constant, *stored, &mut error)?;
            done += 1;
            progress(done, total);
        }
        report.int8_weight_error = error.relative();
    }
    writer.finish()?;
    Ok(Report { components: reports })
}

fn part(folder: &Folder, component: Component, precision: Precision) -> Result<Part, ImportError> {
    let size = |name: &str, at: usize| folder.analysis_size(component, name, at);
    let imported = onnx::import(&folder.graph_file(component), &size)
        .map_err(|source| ImportError::Graph { component, source })?;
    let graph = serde_json::to_vec(&imported.graph).expect("a graph has string keys and finite numbers");
    let roles = Role::of_weights(&imported.graph);
    let stored =
        imported.weights.iter().map(|(name, w)| precision.stored(name, &w.shape(), roles[name])).collect();
    Ok(Part { component, imported, graph, stored })
}

fn header(folder: &Folder, parts: &[Part]) -> Result<Header, ImportError> {
    let files = folder.files().map(|(name, contents)| FileEntry {
        name: name.to_owned(),
        blob: Blob::unwritten(contents.len() as u64),
    });
    let files = files.collect();
    let components = parts
        .iter()
        .map(|part| {
            Ok(ComponentEntry {
                name: part.component,
                config: folder.config(part.component).clone(),
                graph: Blob::unwritten(part.graph.len() as u64),
                tensors: part.entries()?,
            })
        })
        .collect::<Result<_, ImportError>>()?;
    Ok(Header { pipeline: folder.pipeline(), licences: folder.licences(), files, components })
}

fn write_weight(
    writer: &mut BundleWriter,
    part: &Part,
    name: &str,
    constant: &Constant,
    stored: Stored,
    error: &mut quantise::Error,
) -> Result<(), ImportError> {
    let component = part.component;
    let values = constant
        .read(name, &part.imported.initialisers)
        .map_err(|source| ImportError::Graph { component, source })?;
    let shape = constant.shape();
    let (outputs, inputs) = (shape[0], shape[1..].iter().product());
    let matrix = stored.layout == Layout::O8k4;
    match stored.dtype {
        Dtype::F32 if matrix => {
            writer.write_tensor(component, name, Values::F32(&pack_o8k4(&values, outputs, inputs)))?;
        }
        Dtype::F32 => writer.write_tensor(component, name, Values::F32(&values))?,
        Dtype::F16 => {
            let halves: Vec<half::f16> = values.iter().map(|&v| half::f16::from_f32(v)).collect();
            let halves = if matrix { pack_o8k4(&halves, outputs, inputs) } else { halves };
            writer.write_tensor(component, name, Values::F16(&halves))?;
        }
        Dtype::I8 => {
            let rows = quantise::per_channel(&values, outputs, error);
            let (values, scales) = if matrix {
                (pack_o8k4(&rows.values, outputs, inputs), pack_o8k4_scales(&rows.scales, outputs, 1))
            } else {
                (rows.values, rows.scales)
            };
            writer.write_tensor(component, name, Values::I8 { values: &values, scales: &scales })?;
        }
    }
    Ok(())
}

impl Part {
    fn entries(&self) -> Result<Vec<TensorEntry>, ImportError> {
        let weights = self.imported.weights.iter().zip(&self.stored);
        weights
            .map(|((name, constant), stored)| {
                let scales = (stored.dtype == Dtype::I8).then_some(Scales::Channel);
                let component = self.component;
                TensorEntry::new(
                    component,
                    name.clone(),
                    stored.dtype,
                    &constant.shape(),
                    stored.layout,
                    scales,
                )
                .map_err(|source| ImportError::Tensor { component, source })
            })
            .collect()
    }

    fn report(&self) -> ComponentReport {
        let mut numbers = Numbers::default();
        for ((_, constant), stored) in self.imported.weights.iter().zip(&self.stored) {
            let count: usize = constant.shape().iter().product();
            match stored.dtype {
                bundle::Dtype::I8 => numbers.i8 += count,
                bundle::Dtype::F16 => numbers.f16 += count,
                bundle::Dtype::F32 => numbers.f32 += count,
            }
        }
        ComponentReport {
            component: self.component.name(),
            operations: self.imported.graph.nodes.len(),
            numbers,
            int8_weight_error: 0.0,
        }
    }
}
