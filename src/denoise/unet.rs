//! The network that says, for noisy latents and a prompt, what of them is noise.

use std::sync::Arc;

use super::attention::AttentionMap;
use super::guidance::{self, GuidanceScale};
use super::network::Network;
use crate::bundle::{self, Bundle};
use crate::engine::{EngineError, NamedTensor, Resources, TokenMerging};
use crate::tensor::{Latents, TextEmbedding};

/// A UNet and what its configuration says of its inputs.
pub struct Unet {
    network: Network,
    class_labels: Option<usize>,
    /// The width of the guidance embedding that the network takes.
    timestep_cond: Option<usize>,
    /// Pixels along a latent cell, of a network that is told a picture's sizes and the prompt's pooled embedding.
    told_sizes: Option<usize>,
}

/// When a network is asked, and how it is shown the latents.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What the latents are divided by.
    pub divisor: f32,
    /// The timestep; not always a whole number.
    pub timestep: f32,
    /// Channels that are shown behind the latents, as high and as wide.
    pub beside: Option<&'a Latents>,
}

impl Unet {
    /// Loads the UNet of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none or its graph cannot be read.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EngineError> {
        let network = Network::load(bundle, bundle::Component::Unet, resources)?;
        let config = bundle.component(bundle::Component::Unet).map(|c| &c.config);
        let number = |key: &str| config.and_then(|c| c[key].as_u64()).and_then(|n| usize::try_from(n).ok());
        let wants = |name: &str| network.component().inputs().iter().any(|input| input.name == name);
        let class_labels = number("projection_class_embeddings_input_dim").filter(|_| wants("class_labels"));
        let timestep_cond = number("time_cond_proj_dim").filter(|_| wants("timestep_cond"));
        let told_sizes = wants("time_ids").then_some(bundle.pipeline().vae_scale_factor);
        Ok(Self { network, class_labels, timestep_cond, told_sizes })
    }

    /// The same, and it is recorded from now on what of the prompt the network attends to.
    ///
    /// # Errors
    /// [`EngineError::NoCrossAttention`] if it reads the prompt in another way.
    pub fn recording_attention(self) -> Result<Self, EngineError> {
        Ok(Self { network: self.network.recording_attention()?, ..self })
    }

    /// The same, and deep features are computed in every so many steps alone; in every one, if that is 1.
    ///
    /// # Errors
    /// [`EngineError::NoDeepFeatures`] if there are none.
    pub fn caching_features(self, every: usize) -> Result<Self, EngineError> {
        Ok(Self { network: self.network.caching_features(every)?, ..self })
    }

    /// The same, with fewer tokens in self-attention on the largest maps.
    ///
    /// # Errors
    /// [`EngineError::NoSelfAttention`] if there is none.
    pub fn merging_tokens(self, share: TokenMerging) -> Result<Self, EngineError> {
        Ok(Self { network: self.network.merging_tokens(share)?, ..self })
    }

    /// Says how many steps of a picture are done.
    pub fn begin_step(&mut self, done: usize) {
        self.network.begin_step(done);
    }

    /// What was recorded: a map for each token of the prompt.
    pub fn attention_maps(&self) -> Vec<AttentionMap> {
        self.network.attention_maps()
    }

    /// Whether the network is told how strictly to follow the prompt, and so needs to be asked only once.
    pub fn is_told_guidance(&self) -> bool {
        self.timestep_cond.is_some()
    }

    /// How many tokens an embedding of a prompt has to have, if the network does not take any number.
    pub fn fixed_tokens(&self) -> Option<usize> {
        let input =
            self.network.component().inputs().iter().find(|input| input.name == "encoder_hidden_states")?;
        *input.shape.get(1)?
    }

    /// Predicts for `latents`; as long as these. An image embedding that the network may take is the text's, or
    /// zeros. The guidance scale is for networks that are told it.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict(
        &mut self,
        latents: &Latents,
        input: Input,
        text: &TextEmbedding,
        guidance_scale: GuidanceScale,
    ) -> Result<Vec<f32>, EngineError> {
        let inputs = self.inputs(latents, input, text, guidance_scale);
        self.network.predict(&inputs)
    }

    /// As [`Unet::predict`], for two prompts: in one pass over the weights where memory allows it. The result is the same.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict_both(
        &mut self,
        latents: &Latents,
        input: Input,
        texts: [&TextEmbedding; 2],
        guidance_scale: GuidanceScale,
    ) -> Result<[Vec<f32>; 2], EngineError> {
        let inputs = texts.map(|text| self.inputs(latents, input, text, guidance_scale));
        self.network.predict_both(inputs)
    }

    fn inputs(
        &self,
        latents: &Latents,
        Input { divisor, timestep, beside }: Input,
        text: &TextEmbedding,
        guidance_scale: GuidanceScale,
    ) -> Vec<NamedTensor> {
        let text_shape = [1, text.tokens(), text.width()];
        let mut sample: Vec<f32> = latents.values().iter().map(|x| x / divisor).collect();
        let mut sample_shape = latents.shape();
        if let Some(beside) = beside {
            sample.extend(beside.values());
            sample_shape[1] += beside.channels();
        }
        let mut inputs = vec![
            NamedTensor::new("sample", &sample_shape, sample),
            NamedTensor::new("timestep", &[1], vec![timestep]),
            NamedTensor::new("encoder_hidden_states", &text_shape, text.values().to_vec()),
        ];
        if let Some(width) = self.class_labels {
            let labels = Some(text.class_labels().to_vec()).filter(|labels| !labels.is_empty());
            let labels = labels.unwrap_or_else(|| vec![0.0; width]);
            inputs.push(NamedTensor::new("class_labels", &[1, labels.len()], labels));
        }
        if let Some(width) = self.timestep_cond {
            let embedding = guidance::embedding(guidance_scale, width);
            inputs.push(NamedTensor::new("timestep_cond", &[1, width], embedding));
        }
        if let Some(cell_px) = self.told_sizes {
            // The original size, where it was cut, and the size: a picture that is whole.
            let [height, width] =
                [latents.height_cells(), latents.width_cells()].map(|cells| (cells * cell_px) as f32);
            let sizes = vec![height, width, 0.0, 0.0, height, width];
            inputs.push(NamedTensor::new("time_ids", &[1, sizes.len()], sizes));
            inputs.push(NamedTensor::new("text_embeds", &[1, text.pooled().len()], text.pooled().to_vec()));
        }
        inputs
    }
}
