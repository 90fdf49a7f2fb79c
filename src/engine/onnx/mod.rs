//! ONNX file -> the table of operations that a bundle holds.
//!
//! ```text
//! model.onnx --tract-onnx--> nodes + shapes + constants      source     weights stay in the file
//!            --lower-------> what each ONNX value means      meaning    a view, half a GELU, scores, ...
//!            --prune-------> Graph + where its weights are   graph      what the outputs need
//! ```
//! Exporters write one operation of a network as five or fifty ONNX nodes, and no two write the same ones.
//! So nothing is matched as a template. Each ONNX value is given a *meaning*, and each node is a rule that
//! takes the meanings of its inputs to that of its output: `Sigmoid(x)` means "the sigmoid of x", and `Mul`
//! of x and "the sigmoid of x" means SiLU. `Transpose` and `Reshape` only turn a `View`. A node for
//! whose inputs there is no rule is refused by name: a graph is taken over whole or not at all.

mod constant;
mod initialiser;
mod lower;
mod meaning;
mod source;
mod view;

use std::path::{Path, PathBuf};

pub use constant::Constant;
pub use initialiser::Initialisers;

use crate::engine::graph::Graph;

/// Why an ONNX file was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read as ONNX.
    #[error("cannot read {file} as an ONNX model")]
    Read {
        /// The file.
        file: PathBuf,
        /// What tract-onnx says.
        source: tract_onnx::prelude::TractError,
    },
    /// The file makes the reader of ONNX fail.
    #[error("{file} cannot be made sense of: it is damaged, or was not written by an exporter")]
    Malformed {
        /// The file.
        file: PathBuf,
    },
    /// The file holds no graph.
    #[error("{file} holds no graph")]
    NoGraph {
        /// The file.
        file: PathBuf,
    },
    /// The shapes of the graph do not work out.
    #[error("the graph's shapes cannot be worked out")]
    Analyse {
        /// What tract-onnx says.
        source: tract_onnx::prelude::TractError,
    },
    /// A graph input without a usable type.
    #[error("input `{name}` has no type, or one that is neither float nor integer")]
    Input {
        /// The input.
        name: String,
    },
    /// A weight that is neither f32 nor f16.
    #[error(
        "weight `{name}` has ONNX element type {got}; float32 (1) and float16 (10) are supported: export it in one of them"
    )]
    ElementType {
        /// The initialiser.
        name: String,
        /// The number of its type in ONNX.
        got: i32,
    },
    /// A weight whose shape is impossible or does not fit its data.
    #[error("weight `{name}` has shape {shape:?}, which its data does not fill")]
    Shape {
        /// The initialiser.
        name: String,
        /// The shape in the file.
        shape: Vec<i64>,
    },
    /// External data that is not a plain, long enough file of the model's folder.
    #[error("external data of weight `{name}` is refused: {reason}")]
    ExternalData {
        /// The initialiser.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight that holds NaN or infinity.
    #[error("weight `{name}` holds a value that is not finite: the export or the training went wrong")]
    NotFinite {
        /// The weight.
        name: String,
    },
    /// A weight's data file fails while it is read.
    #[error("cannot read weight `{name}`")]
    Weight {
        /// The weight.
        name: String,
        /// The file system's reason.
        source: std::io::Error,
    },
    /// A node that no rule takes over.
    #[error("node `{node}` ({op_type}) is not supported here: {reason}")]
    Unsupported {
        /// The node's name in the file.
        node: String,
        /// Its ONNX operator.
        op_type: String,
        /// Why no rule applies.
        reason: String,
    },
}

/// A component taken over from ONNX: its graph, and its weights where they lie.
pub struct Imported {
    /// The operations.
    pub graph: Graph,
    /// The weights that the graph names, in the order of their first use.
    pub weights: Vec<(String, Constant)>,
    /// The file's own initialisers, from which the weights are read.
    pub initialisers: Initialisers,
}

/// Takes over the graph in `file`. Free dimensions are given by `size`, for the input's name and the place of
/// the dimension; the result holds for every size.
///
/// # Errors
/// [`OnnxError`], naming the weight or node.
pub fn import(file: &Path, size: &dyn Fn(&str, usize) -> usize) -> Result<Imported, OnnxError> {
    let take_over = || {
        let source = source::Source::read(file, size)?;
        let (graph, weights) = lower::lower(&source)?;
        Ok(Imported { graph, weights, initialisers: source.initialisers })
    };
    // The reader of the file is not ours and was not written for files that mean harm. Nothing of it is used again.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(take_over))
        .unwrap_or_else(|_| Err(OnnxError::Malformed { file: file.to_owned() }))
}
