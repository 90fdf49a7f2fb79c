//! The engine: a component's graph, run by tract over weights that stay in the mapped bundle.
//!
//! ```text
//! import (once, anywhere)    model.onnx -> onnx/ -> Graph + weights -> bundle
//! run (on the board)         bundle -> Graph -> plan for one size -> run, run, run
//! ```
//! tract orders the operations, frees each value after its last use and carries the threads. What the
//! operations do is ours (`ops`): they read weights where the file has them, turn a few rows at a time into
//! `f32` and never make the large intermediate results that a textbook form would.
//!
//! This is the only module that names tract.

pub mod adapters;
mod ahead;
mod component;
mod cross_attention;
mod deep;
mod dimensions;
mod fused;
pub mod graph;
mod layers;
mod memory;
mod merging;
mod node;
pub mod onnx;
mod ops;
mod plan;
mod pulse;
mod resources;
mod stripes;
mod threads;
mod weights;

pub use component::{BESIDE_BYTES, Component, Footprint, NamedTensor};
pub use cross_attention::CrossAttention;
pub use deep::DEEP_FEATURES;
pub use dimensions::free_dimension;
pub use merging::{TokenMerging, TokenMergingError};
pub use pulse::{Pulse, Stopped};
pub use resources::{Resources, Tile};
pub use threads::Threads;

use crate::bundle;

/// Why a component cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The bundle has no such component.
    #[error("this model has no {component}")]
    NoComponent {
        /// The one asked for.
        component: bundle::Component,
    },
    /// The component's graph section is not a graph.
    #[error(
        "the graph of {component} cannot be read: the model file was made by another version, import it again"
    )]
    Graph {
        /// The component.
        component: bundle::Component,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The graph asks for something that its weights or other nodes do not give.
    #[error("node `{node}` of {component}: {reason}")]
    Node {
        /// The component.
        component: bundle::Component,
        /// The node.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// An input that the graph needs was not given.
    #[error("{component} needs an input `{name}`")]
    MissingInput {
        /// The component.
        component: bundle::Component,
        /// The input.
        name: String,
    },
    /// An input of a shape that the graph does not take.
    #[error("input `{name}` of {component} has shape {got:?}, expected {expected}")]
    InputShape {
        /// The component.
        component: bundle::Component,
        /// The input.
        name: String,
        /// What the graph takes.
        expected: String,
        /// What was given.
        got: Vec<usize>,
    },
    /// An output that the pipeline needs is not among the graph's.
    #[error("{component} has no output `{name}`")]
    MissingOutput {
        /// The component.
        component: bundle::Component,
        /// The output.
        name: String,
    },
    /// The network has fewer layers than are to be left out, or they cannot be told apart.
    #[error("{component} has {got} layers that can be left out, and {wanted} are to be")]
    Layers {
        /// The component.
        component: bundle::Component,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        got: usize,
    },
    /// The network reads no text by attention.
    #[error("{component} has no cross-attention, so there is nothing to see of where words act")]
    NoCrossAttention {
        /// The component.
        component: bundle::Component,
    },
    /// The network has no deep part that outer blocks could do without.
    #[error(
        "{component} joins nothing on its way up, so it has no deep features to use again: leave the feature cache out"
    )]
    NoDeepFeatures {
        /// The component.
        component: bundle::Component,
    },
    /// The network has no self-attention that fewer tokens could do for.
    #[error("{component} has no self-attention, so it has no tokens to merge: leave token merging out")]
    NoSelfAttention {
        /// The component.
        component: bundle::Component,
    },
    /// The plan takes more memory than is allowed.
    #[error(
        "{component} needs {:.1} MB of memory and {:.1} MB are allowed: allow more, or draw a smaller picture",
        *needed as f64 / 1e6, *available as f64 / 1e6
    )]
    Memory {
        /// The component.
        component: bundle::Component,
        /// The planned peak of anonymous memory, in bytes.
        needed: usize,
        /// What the request allows, in bytes.
        available: usize,
    },
    /// The system does not give the memory that the plan takes.
    #[error("{component} needs {:.1} MB of memory, which the system does not give", *needed as f64 / 1e6)]
    OutOfMemory {
        /// The component.
        component: bundle::Component,
        /// The planned peak, in bytes.
        needed: usize,
    },
    /// The run was stopped by its [`Pulse`].
    #[error("{component} was stopped")]
    Stopped {
        /// The component.
        component: bundle::Component,
    },
    /// tract failed while it planned or ran.
    #[error("{component} could not be run")]
    Run {
        /// The component.
        component: bundle::Component,
        /// What tract says.
        source: tract_core::prelude::TractError,
    },
}
