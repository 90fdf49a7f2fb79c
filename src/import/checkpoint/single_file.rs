//! One file with all of a Stable Diffusion 1, 2 or XL, by the names of the original.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Checkpoint, derived};
use crate::bundle::Component;
use crate::import::architectures::ArchitectureError;
use crate::names::unet::Blocks;
use crate::names::{self, Place, clip};
use crate::tensor_file::TensorFile;

/// Where the UNet's weights are.
pub const UNET: &str = "model.diffusion_model.";
/// Where the autoencoder's weights are.
pub const AUTOENCODER: &str = "first_stage_model.";
/// Where transformers' text encoder is in 1, and in XL.
const CLIP: [&str; 2] = ["cond_stage_model.transformer.", "conditioner.embedders.0.transformer."];
/// Where OpenCLIP's is in 2, in XL, and in XL's refiner.
const OPEN_CLIP: [&str; 3] =
    ["cond_stage_model.model.", "conditioner.embedders.1.model.", "conditioner.embedders.0.model."];
/// After so many steps of training, Stable Diffusion 2 predicted noise; the other published one predicts the velocity.
///
/// Source: diffusers 0.42.1, `single_file_utils.py`.
const STEPS_OF_2_BASE: i64 = 875_000;

/// Which Stable Diffusion it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// 1.x
    One,
    /// 2.x
    Two,
    /// XL
    Xl,
}

/// A network of a file, and what its names follow from.
#[derive(Debug, Clone)]
pub enum Network {
    /// The UNet.
    Unet(Blocks),
    /// An autoencoder with so many levels.
    Autoencoder {
        /// How many.
        levels: usize,
    },
    /// A text encoder with transformers' names behind a prefix.
    Clip(&'static str),
    /// A text encoder with OpenCLIP's names behind a prefix.
    OpenClip(&'static str),
}

impl Network {
    /// Where a weight may be that diffusers calls `name`.
    pub(super) fn places(&self, name: &str) -> Vec<Place> {
        match self {
            Self::Unet(blocks) => vec![format!("{UNET}{}", names::unet::original(name, blocks)).into()],
            Self::Autoencoder { levels } => {
                vec![format!("{AUTOENCODER}{}", names::autoencoder::original(name, *levels)).into()]
            }
            Self::Clip(prefix) => {
                let names = std::iter::once(name.to_owned()).chain(clip::newer(name));
                names.map(|name| format!("{prefix}{name}").into()).collect()
            }
            Self::OpenClip(prefix) => {
                let place = clip::open_clip(name);
                vec![Place { name: format!("{prefix}{}", place.name), ..place }]
            }
        }
    }

    /// What the names begin with of which all have to be used; `None` where files have more than is needed, such as the last
    /// layer of OpenCLIP in Stable Diffusion 2.
    pub(super) fn own_prefix(&self) -> Option<&'static str> {
        match self {
            Self::Unet(_) => Some(UNET),
            Self::Autoencoder { .. } => Some(AUTOENCODER),
            Self::Clip(_) | Self::OpenClip(_) => None,
        }
    }
}

/// Networks that are one checkpoint together, with their configurations as diffusers would have them.
type Networks = Vec<(Component, Value, Arc<Checkpoint>)>;

/// A file with all of a model.
#[derive(Debug)]
pub struct SingleFile {
    file: Arc<TensorFile>,
    family: Family,
}

impl SingleFile {
    /// Opens a file and finds out which model it is.
    ///
    /// # Errors
    /// [`ArchitectureError::File`]; [`ArchitectureError::Unknown`] if it is none of these.
    pub fn open(path: &Path) -> Result<Self, ArchitectureError> {
        let file = Arc::new(TensorFile::open(path)?);
        let has = |prefix: &str, name: &str| file.shape(&format!("{prefix}{name}")).is_some();
        let unknown = |what: &str| ArchitectureError::Unknown {
            file: path.to_owned(),
            got: what.to_owned(),
            expected: "Stable Diffusion 1, 2 or XL with the names of its original, such as model.diffusion_model.input_blocks.0.0.weight",
        };
        if !has(UNET, "input_blocks.0.0.weight") {
            return Err(unknown("a file of other networks"));
        }
        let clip = |at: usize| {
            ["text_model.", ""].iter().any(|part| has(CLIP[at], &format!("{part}final_layer_norm.weight")))
        };
        let open_clip = |at: usize| has(OPEN_CLIP[at], "ln_final.weight");
        let family = match () {
            () if clip(1) && open_clip(1) => Family::Xl,
            () if open_clip(0) => Family::Two,
            () if clip(0) => Family::One,
            () if open_clip(2) => return Err(unknown("the refiner of Stable Diffusion XL")),
            () => return Err(unknown("a UNet without a text encoder that is known")),
        };
        Ok(Self { file, family })
    }

    /// Which model it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its networks.
    ///
    /// # Errors
    /// [`ArchitectureError`] if the shapes of the weights are those of no network that is known.
    pub fn networks(&self) -> Result<Networks, ArchitectureError> {
        let mut networks = self.text_encoders()?;
        let (config, blocks) = derived::unet(&self.file, self.family)?;
        networks.push((Component::Unet, config, self.checkpoint(Network::Unet(blocks))));
        if self.file.shape(&format!("{AUTOENCODER}decoder.conv_in.weight")).is_some() {
            let (config, levels) = derived::autoencoder(&self.file, self.family)?;
            let checkpoint = self.checkpoint(Network::Autoencoder { levels });
            networks.push((Component::VaeDecoder, config.clone(), checkpoint.clone()));
            networks.push((Component::VaeEncoder, config, checkpoint));
        }
        Ok(networks)
    }

    fn text_encoders(&self) -> Result<Networks, ArchitectureError> {
        let network = |component, network: Network, drops_last| {
            let checkpoint = self.checkpoint(network.clone());
            let config = derived::text_encoder(&checkpoint, &network, drops_last)?;
            Ok::<_, ArchitectureError>((component, config, checkpoint))
        };
        match self.family {
            Family::One => Ok(vec![network(Component::TextEncoder, Network::Clip(CLIP[0]), false)?]),
            Family::Two => Ok(vec![network(Component::TextEncoder, Network::OpenClip(OPEN_CLIP[0]), true)?]),
            Family::Xl => Ok(vec![
                network(Component::TextEncoder, Network::Clip(CLIP[1]), false)?,
                network(Component::TextEncoder2, Network::OpenClip(OPEN_CLIP[1]), false)?,
            ]),
        }
    }

    /// The scheduler's configuration. The UNet is taken to predict noise, but for a Stable Diffusion 2 that does not say that
    /// it is the one that does.
    pub fn scheduler(&self) -> Value {
        let is_2_base = || self.file.integer("global_step") == Some(STEPS_OF_2_BASE);
        let prediction_type = match self.family {
            Family::Two if !is_2_base() => "v_prediction",
            _ if self.file.shape("v_pred").is_some() => "v_prediction",
            _ => "epsilon",
        };
        let class = if self.family == Family::Xl { "EulerDiscreteScheduler" } else { "DDIMScheduler" };
        json!({
            "_class_name": class, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000, "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1,
            "timestep_spacing": "leading", "prediction_type": prediction_type,
            "rescale_betas_zero_snr": self.file.shape("ztsnr").is_some(),
        })
    }

    fn checkpoint(&self, network: Network) -> Arc<Checkpoint> {
        Arc::new(Checkpoint::original(&self.file, network))
    }
}
