//! The network that says, for noisy latents and a prompt, what of them is noise.

use std::sync::Arc;

use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::{Latents, TextEmbedding};

/// A UNet and what its configuration says of its inputs.
pub struct Unet {
    component: Component,
    class_labels: Option<usize>,
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
        let wants_labels = component.inputs().iter().any(|input| input.name == "class_labels");
        let class_labels = number("projection_class_embeddings_input_dim").filter(|_| wants_labels);
        Ok(Self { component, class_labels })
    }

    /// Predicts for `latents` at `timestep`; as long as the latents. An image embedding that the network may
    /// take is left out, which it knows as zeros.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict(
        &mut self,
        latents: &Latents,
        timestep: u32,
        text: &TextEmbedding,
    ) -> Result<Vec<f32>, EngineError> {
        let text_shape = [1, text.tokens(), text.width()];
        let mut inputs = vec![
            NamedTensor::new("sample", &latents.shape(), latents.values().to_vec()),
            NamedTensor::new("timestep", &[1], vec![timestep as f32]),
            NamedTensor::new("encoder_hidden_states", &text_shape, text.values().to_vec()),
        ];
        if let Some(width) = self.class_labels {
            inputs.push(NamedTensor::new("class_labels", &[1, width], vec![0.0; width]));
        }
        Ok(self.component.run_for("out_sample", &inputs)?.values)
    }
}
