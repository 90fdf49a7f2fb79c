//! The network that says, for noisy latents and a prompt, what of them is noise.

use std::sync::Arc;

use super::guidance::{self, GuidanceScale};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, Footprint, NamedTensor, Resources};
use crate::tensor::{Latents, TextEmbedding};

/// What a pass for two prompts may take where nobody sets a limit, in bytes.
const BOTH_BYTES: usize = 250_000_000;

/// A UNet and what its configuration says of its inputs.
pub struct Unet {
    component: Component,
    class_labels: Option<usize>,
    /// The width of the guidance embedding that the network takes.
    timestep_cond: Option<usize>,
    /// Pixels along a latent cell, of a network that is told a picture's sizes and the prompt's pooled embedding.
    told_sizes: Option<usize>,
    memory_bytes: Option<usize>,
    /// Whether two prompts go through in one pass, once that is known.
    takes_both: Option<bool>,
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
        let component = Component::load(bundle, bundle::Component::Unet, resources)?;
        let config = bundle.component(bundle::Component::Unet).map(|c| &c.config);
        let number = |key: &str| config.and_then(|c| c[key].as_u64()).and_then(|n| usize::try_from(n).ok());
        let wants = |name: &str| component.inputs().iter().any(|input| input.name == name);
        let class_labels = number("projection_class_embeddings_input_dim").filter(|_| wants("class_labels"));
        let timestep_cond = number("time_cond_proj_dim").filter(|_| wants("timestep_cond"));
        let told_sizes = wants("time_ids").then_some(bundle.pipeline().vae_scale_factor);
        let memory_bytes = resources.memory_bytes;
        Ok(Self { component, class_labels, timestep_cond, told_sizes, memory_bytes, takes_both: None })
    }

    /// Whether the network is told how strictly to follow the prompt, and so needs to be asked only once.
    pub fn is_told_guidance(&self) -> bool {
        self.timestep_cond.is_some()
    }

    /// How many tokens an embedding of a prompt has to have, if the network does not take any number.
    pub fn fixed_tokens(&self) -> Option<usize> {
        let input = self.component.inputs().iter().find(|input| input.name == "encoder_hidden_states")?;
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
        Ok(self.component.run_for("out_sample", &inputs)?.values)
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
        let [first, second] = texts.map(|text| self.inputs(latents, input, text, guidance_scale));
        if self.takes_both.is_none() {
            self.takes_both = Some(prepare_both(&mut self.component, &first, self.memory_bytes).is_some());
        }
        let both = if self.takes_both == Some(true) { stacked(&first, &second) } else { None };
        let Some(both) = both else {
            let first = self.component.run_for("out_sample", &first)?.values;
            return Ok([first, self.component.run_for("out_sample", &second)?.values]);
        };
        let mut first = self.component.run_for("out_sample", &both)?.values;
        let second = first.split_off(first.len() / 2);
        Ok([first, second])
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

/// Plans a UNet for two prompts in one pass, given the inputs for one; `None` if that takes too much, or its graph does not
/// know it.
pub fn prepare_both(
    component: &mut Component,
    inputs: &[NamedTensor],
    memory_bytes: Option<usize>,
) -> Option<Footprint> {
    let footprint = component.prepare(&stacked(inputs, inputs)?).ok()?;
    (memory_bytes.is_some() || footprint.peak_anon_bytes <= BOTH_BYTES).then_some(footprint)
}

/// Two batches of one as a batch of two; `None` if they are not alike.
fn stacked(first: &[NamedTensor], second: &[NamedTensor]) -> Option<Vec<NamedTensor>> {
    let stack = |(first, second): (&NamedTensor, &NamedTensor)| {
        let (1, true) = (*first.shape.first()?, first.shape == second.shape) else { return None };
        let shape = [&[2], &first.shape[1..]].concat();
        Some(NamedTensor::new(&first.name, &shape, [&first.values[..], &second.values[..]].concat()))
    };
    first.iter().zip(second).map(stack).collect()
}
