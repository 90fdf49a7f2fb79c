//! The network that says, for noisy latents and a prompt, what of them is noise.

use std::sync::Arc;

use super::guidance::{self, GuidanceScale};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::{Latents, TextEmbedding};

/// A UNet and what its configuration says of its inputs.
pub struct Unet {
    component: Component,
    class_labels: Option<usize>,
    /// The width of the guidance embedding that the network takes.
    timestep_cond: Option<usize>,
}

/// When a network is asked, and how it is shown the latents.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    /// What the latents are divided by.
    pub divisor: f32,
    /// The timestep; not always a whole number.
    pub timestep: f32,
}

impl Unet {
    /// Loads the UNet of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none or its graph cannot be read.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EngineError> {
        let component = Component::load(bundle, bundle::Component::Unet, resources)?;
        let config = bundle.component(bundle::Component::Unet).map(|c| &c.config);
        let number = |key: &str| config.and_then(|c| c[key].as_u64()).and_then(|n| usize::try_from(n).ok());
        let wants = |name: &str| component.inputs().iter().any(|input| input.name == name);
        let class_labels = number("projection_class_embeddings_input_dim").filter(|_| wants("class_labels"));
        let timestep_cond = number("time_cond_proj_dim").filter(|_| wants("timestep_cond"));
        Ok(Self { component, class_labels, timestep_cond })
    }

    /// Whether the network is told how strictly to follow the prompt, and so needs to be asked only once.
    pub fn is_told_guidance(&self) -> bool {
        self.timestep_cond.is_some()
    }

    /// Predicts for `latents`; as long as these. An image embedding that the network may take is left out, which it
    /// knows as zeros. The guidance scale is for networks that are told it.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict(
        &mut self,
        latents: &Latents,
        Input { divisor, timestep }: Input,
        text: &TextEmbedding,
        guidance_scale: GuidanceScale,
    ) -> Result<Vec<f32>, EngineError> {
        let text_shape = [1, text.tokens(), text.width()];
        let sample = latents.values().iter().map(|x| x / divisor).collect();
        let mut inputs = vec![
            NamedTensor::new("sample", &latents.shape(), sample),
            NamedTensor::new("timestep", &[1], vec![timestep]),
            NamedTensor::new("encoder_hidden_states", &text_shape, text.values().to_vec()),
        ];
        if let Some(width) = self.class_labels {
            inputs.push(NamedTensor::new("class_labels", &[1, width], vec![0.0; width]));
        }
        if let Some(width) = self.timestep_cond {
            let embedding = guidance::embedding(guidance_scale, width);
            inputs.push(NamedTensor::new("timestep_cond", &[1, width], embedding));
        }
        Ok(self.component.run_for("out_sample", &inputs)?.values)
    }
}
