//! How each weight is stored.
//!
//! Matrices are what takes space, and what bears few bits. The first and last layers, the embeddings of time
//! and the projections between a network and its blocks carry every signal at once and are small: they stay
//! f16 where the rest is int8.

use std::collections::HashMap;

use crate::bundle::{Dtype, Layout};
use crate::engine::graph::{Graph, Op};

/// What most weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// int8 with a scale per output channel, or per 32 inputs where that is needed; sensitive weights f16.
    Int8,
    /// f16.
    F16,
    /// f32, for comparison.
    F32,
}

/// What a weight is to its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The matrix of a product.
    Matrix,
    /// Rows that are looked up.
    Table,
    /// Everything small: biases, factors, positions.
    Vector,
}

/// How a weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Their order.
    pub layout: Layout,
}

/// Modules, by the names that diffusers and transformers give them, whose weights stay f16 in an int8 model unless its
/// maker says otherwise.
const SENSITIVE: &[&str] = &[
    "conv_in",
    "conv_out",
    "conv_shortcut",
    "proj_in",
    "proj_out",
    "time_embedding",
    "add_embedding",
    "class_embedding",
    "quant_conv",
    "post_quant_conv",
    "patch_embedding",
    "text_projection",
    "visual_projection",
];

impl Role {
    /// The roles of all weights that a graph names.
    pub fn of_weights(graph: &Graph) -> HashMap<String, Self> {
        let mut roles = HashMap::new();
        for node in &graph.nodes {
            for name in node.op.weights() {
                let role = match &node.op {
                    Op::Conv2d { weight, .. } | Op::Linear { weight, .. } if weight == name => Self::Matrix,
                    Op::Embedding { .. } => Self::Table,
                    _ => Self::Vector,
                };
                roles.insert(name.to_owned(), role);
            }
        }
        roles
    }
}

impl Precision {
    /// How a weight of this name, shape and role is stored; `f16` names the modules that stay f16 in an int8 model,
    /// where the model's maker chose them.
    pub fn stored(self, name: &str, shape: &[usize], role: Role, f16: Option<&[String]>) -> Stored {
        let layout = if role == Role::Matrix { Layout::O8k4 } else { Layout::Row };
        let stays =
            |module: &str| f16.map_or(SENSITIVE.contains(&module), |f16| f16.iter().any(|m| m == module));
        let sensitive = name.split('.').any(stays);
        let dtype = match (self, role) {
            (_, Role::Vector) | (Self::F32, _) => Dtype::F32,
            (Self::F16, _) => Dtype::F16,
            (Self::Int8, _) if sensitive || shape.len() < 2 => Dtype::F16,
            (Self::Int8, _) => Dtype::I8,
        };
        Stored { dtype, layout }
    }
}
