//! The request of a picture, as texts that travel inside of it.
//!
//! `parameters` is the line that A1111's web UI and its many readers know; `tintype` is a JSON object with everything
//! that makes the same picture again.

use serde::{Deserialize, Serialize};

use super::{Image, Request, Sampler};
use crate::bundle::Bundle;
use crate::denoise::guidance::GuidanceInterval;
use crate::kernels::Arithmetic;
use crate::lora::Lora;

/// The keyword of the A1111 text.
pub const PARAMETERS: &str = "parameters";
/// The keyword of the manifest.
pub const MANIFEST: &str = "tintype";

/// Everything that makes a picture again, with the same model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of Tintype that made it.
    pub version: String,
    /// The kind of pipeline.
    pub pipeline: String,
    /// The model's name.
    pub model: String,
    /// The model's hash: it names every byte of the bundle.
    pub model_hash: String,
    /// What was to be drawn.
    pub prompt: String,
    /// What was to be avoided.
    pub negative: String,
    /// The seed of this picture.
    pub seed: u64,
    /// Steps of the sampler.
    pub steps: usize,
    /// The guidance scale.
    pub guidance: f32,
    /// In which share of the steps, if not in all.
    #[serde(default, skip_serializing_if = "GuidanceInterval::is_whole")]
    pub guidance_interval: GuidanceInterval,
    /// The sampler.
    pub sampler: String,
    /// The share of fresh noise per step, where the sampler leaves a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f32>,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// What it was computed in: the same gives the same picture on every machine.
    pub arithmetic: Arithmetic,
    /// Whether the initial noise was given, and so is not the seed's: such a picture needs it to be made again.
    pub latents_given: bool,
    /// What was added to the model's layers, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<UsedLora>,
    /// The other model whose decoder was used, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<UsedDecoder>,
}

/// A LoRA that a picture was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedLora {
    /// The file's name without its folder.
    pub name: String,
    /// The start of the file's BLAKE3, 16 hexadecimal digits.
    pub hash: String,
    /// How strongly it was applied.
    pub strength: f32,
}

/// A decoder that a picture was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedDecoder {
    /// Its model's name.
    pub model: String,
    /// Its model's hash.
    pub model_hash: String,
}

impl From<&Lora> for UsedLora {
    fn from(lora: &Lora) -> Self {
        Self { name: lora.name(), hash: lora.hash().to_owned(), strength: lora.strength() }
    }
}

impl From<&Bundle> for UsedDecoder {
    fn from(bundle: &Bundle) -> Self {
        Self { model: bundle.pipeline().name.clone(), model_hash: bundle.model_hash() }
    }
}

impl Manifest {
    /// Of a picture that `request` made with the model in `bundle`.
    pub fn new(image: &Image, request: &Request, bundle: &Bundle) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            pipeline: bundle.pipeline().kind.clone(),
            model: bundle.pipeline().name.clone(),
            model_hash: bundle.model_hash(),
            prompt: request.prompt.as_str().into(),
            negative: request.negative.as_str().into(),
            seed: image.seed,
            steps: request.steps,
            guidance: request.guidance_scale.get(),
            guidance_interval: request.guidance_interval,
            sampler: request.sampler.name().into(),
            eta: request.eta.or(request.sampler.default_eta()),
            width: image.pixels.width_px(),
            height: image.pixels.height_px(),
            arithmetic: image.arithmetic,
            latents_given: request.latents.is_some(),
            loras: Vec::new(),
            vae: None,
        }
    }

    /// The texts, each with its keyword.
    pub fn texts(&self) -> [(&'static str, String); 2] {
        let json = serde_json::to_string(self).expect("a manifest has string keys");
        [(PARAMETERS, self.parameters()), (MANIFEST, json)]
    }

    /// The text that A1111's web UI writes and reads.
    fn parameters(&self) -> String {
        let Self { prompt, negative, steps, guidance, seed, width, height, model, model_hash, .. } = self;
        let mut text = format!("{prompt}\n");
        if !negative.is_empty() {
            text += &format!("Negative prompt: {negative}\n");
        }
        let title = Sampler::from_name(&self.sampler).map(Sampler::title);
        let (sampler, model) = (quoted(title.unwrap_or(&self.sampler)), quoted(model));
        text += &format!("Steps: {steps}, Sampler: {sampler}, CFG scale: {guidance}, Seed: {seed}, ");
        text += &format!("Size: {width}x{height}, Model hash: {model_hash}, Model: {model}");
        if let Some(vae) = &self.vae {
            text += &format!(", VAE hash: {}, VAE: {}", vae.model_hash, quoted(&vae.model));
        }
        if !self.loras.is_empty() {
            let loras = self.loras.iter().map(|lora| format!("{}: {}", lora.name, lora.hash));
            text += &format!(", Lora hashes: {}", quoted(&loras.collect::<Vec<_>>().join(", ")));
        }
        text
    }
}

/// A value that its readers would cut at a comma, colon or new line is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_say_what_was_asked_for() {
        let manifest = Manifest {
            version: "0.1.0".into(),
            pipeline: "stable-diffusion".into(),
            model: "emoji: one, two".into(),
            model_hash: "00ff".into(),
            prompt: "딸기".into(),
            negative: "blur".into(),
            seed: u64::MAX,
            steps: 8,
            guidance: 2.5,
            guidance_interval: GuidanceInterval::new(0.25, 0.8).unwrap(),
            sampler: "ddim".into(),
            eta: Some(0.0),
            width: 2,
            height: 1,
            arithmetic: Arithmetic::I16,
            latents_given: false,
            loras: vec![UsedLora { name: "a.safetensors".into(), hash: "12ab".into(), strength: 0.5 }],
            vae: Some(UsedDecoder { model: "taesd".into(), model_hash: "34cd".into() }),
        };
        let [(_, parameters), (_, json)] = manifest.texts();
        assert_eq!(
            parameters,
            "딸기\nNegative prompt: blur\nSteps: 8, Sampler: DDIM, CFG scale: 2.5, \
             Seed: 18446744073709551615, Size: 2x1, Model hash: 00ff, Model: \"emoji: one, two\", \
             VAE hash: 34cd, VAE: taesd, Lora hashes: \"a.safetensors: 12ab\""
        );
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }
}
