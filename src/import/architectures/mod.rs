//! Networks as diffusers and transformers define them: configuration and weights -> [`Graph`].
//!
//! ONNX says what is computed, node by node. A file of weights says what it is computed with, and its configuration which of
//! a family of networks it is. So there is a builder for each class, which walks the configuration and emits the same
//! operations that the import of its ONNX graph comes to. A key that no builder knows, or a value that it does not build, is
//! refused by name, and so is a weight that is missing, of another shape, or left over.

mod autoencoder;
mod blocks;
mod builder;
mod clip;
mod config;
mod prior;
mod tiny_autoencoder;
mod transformer;
mod unet;
mod unet_2d;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::checkpoint::{Checkpoint, Stored};
use crate::bundle::Component;
use crate::engine::graph::Graph;
use crate::tensor_file::TensorFileError;
use builder::Builder;
use config::Config;

/// Why a network was not built.
#[derive(Debug, thiserror::Error)]
pub enum ArchitectureError {
    /// A file of weights cannot be read.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// A file that is no model, or one of another kind.
    #[error("{} is {got}, expected {expected}", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// What it is.
        got: String,
        /// What could be imported.
        expected: &'static str,
    },
    /// A value of a configuration that no builder builds.
    #[error("{}: `{key}` is {got}, expected {expected}", file.display())]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What can be built.
        expected: String,
        /// What it says.
        got: String,
    },
    /// A weight that the network has and the file lacks.
    #[error("{} has no tensor `{tensor}`, which the network needs", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight of another shape than the configuration says.
    #[error("tensor `{tensor}` of {} has shape {got:?}, expected {expected:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape by the configuration.
        expected: Vec<usize>,
        /// The shape in the file.
        got: Vec<usize>,
    },
    /// A weight that the file has and the network does not use.
    #[error("tensor `{tensor}` of {} belongs to no part of the network that its configuration describes", file.display())]
    Unused {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A weight that holds NaN or infinity.
    #[error("tensor `{tensor}` of {} holds a value that is not finite", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

/// A network: what it computes, and its weights in the order of their first use.
pub struct Network {
    /// The operations.
    pub graph: Graph,
    /// The weights that the graph names.
    pub weights: Vec<(String, Weight)>,
}

/// Where the numbers of a weight come from.
#[derive(Debug, Clone)]
pub enum Weight {
    /// A file has them; of a convolution in torch's order.
    Stored(Stored),
    /// They follow from the configuration.
    Computed(Vec<f32>),
}

impl Weight {
    /// The shape in which the graph's operations want it.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::Computed(values) => vec![values.len()],
            Self::Stored(stored) => match *stored.shape() {
                [outputs, channels, height, width] => vec![outputs, height, width, channels],
                ref other => other.to_vec(),
            },
        }
    }

    /// The numbers, row-major in [`Weight::shape`].
    ///
    /// # Errors
    /// [`ArchitectureError::NotFinite`].
    pub fn read(&self) -> Result<Vec<f32>, ArchitectureError> {
        let stored = match self {
            Self::Computed(values) => return Ok(values.clone()),
            Self::Stored(stored) => stored,
        };
        let values = stored.read();
        if values.iter().any(|value| !value.is_finite()) {
            let (file, tensor) = (stored.path().to_owned(), stored.tensor().to_owned());
            return Err(ArchitectureError::NotFinite { file, tensor });
        }
        let &[_, channels, height, width] = stored.shape() else { return Ok(values) };
        let taps = height * width;
        let outputs = values.chunks_exact(channels * taps);
        let order = || (0..taps).flat_map(|tap| (0..channels).map(move |channel| channel * taps + tap));
        Ok(outputs.flat_map(|output| order().map(|at| output[at])).collect())
    }

    /// The tensor of the file, if it is one.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Self::Computed(_) => None,
            Self::Stored(stored) => Some(stored.tensor()),
        }
    }
}

/// Builds the network of a component, whose configuration `json` stands in `file`.
///
/// # Errors
/// [`ArchitectureError`].
pub fn build(
    component: Component,
    file: &Path,
    json: &Json,
    checkpoint: &Arc<Checkpoint>,
) -> Result<Network, ArchitectureError> {
    let config = Config::new(file, json);
    let builder = Builder::new(checkpoint);
    match component {
        Component::TextEncoder | Component::TextEncoder2 | Component::PriorTextEncoder => {
            clip::text_encoder(&config, builder)
        }
        Component::ImageEncoder => clip::image_encoder(&config, builder),
        Component::Unet => match config.class(&["UNet2DConditionModel", "UNet2DModel"])? {
            "UNet2DConditionModel" => unet::build(&config, builder),
            _ => unet_2d::build(&config, builder),
        },
        Component::SuperResFirst | Component::SuperResLast => unet_2d::build(&config, builder),
        Component::VaeDecoder | Component::VaeEncoder => {
            let decodes = component == Component::VaeDecoder;
            match config.class(&["AutoencoderKL", "AutoencoderTiny"])? {
                "AutoencoderKL" => autoencoder::build(&config, builder, decodes),
                _ => tiny_autoencoder::build(&config, builder, decodes),
            }
        }
        Component::Prior => prior::prior(&config, builder),
        Component::TextProj | Component::SafetyChecker => {
            Err(config.refuse("_class_name", "a text encoder, UNet, autoencoder, image encoder or prior"))
        }
    }
}
