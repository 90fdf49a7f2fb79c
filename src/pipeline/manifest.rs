//! The request of a picture, as texts that travel inside of it.
//!
//! `parameters` is the line that A1111's web UI and its many readers know; `tintype` is a JSON object with everything
//! that makes the same picture again.

use serde::{Deserialize, Serialize};

use super::replay::Division;
use super::{Additions, Image, InitImage, Request, Sampler, Sight, UnclipRequest};
use crate::bundle::Bundle;
use crate::denoise::guidance::GuidanceInterval;
use crate::engine::TokenMerging;
use crate::kernels::Arithmetic;
use crate::lora::Lora;
use crate::tensor::{Latents, Rgb8};
use crate::text::Syntax;

/// The keyword of the A1111 text.
pub const PARAMETERS: &str = "parameters";
/// The keyword of the manifest.
pub const MANIFEST: &str = "tintype";
/// This program's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    /// How the two are read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub syntax: Syntax,
    /// How many of the text encoder's last layers the prompt did without.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clip_skip: usize,
    /// The seed of this picture.
    pub seed: u64,
    /// Steps of the sampler.
    pub steps: usize,
    /// The guidance scale.
    pub guidance: f32,
    /// In which share of the steps, if not in all.
    #[serde(default, skip_serializing_if = "GuidanceInterval::is_whole")]
    pub guidance_interval: GuidanceInterval,
    /// In every how many steps the UNet's deep features were computed, if not in all.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub feature_cache: usize,
    /// Which share of the tokens was merged for self-attention on the UNet's largest maps, if any.
    #[serde(default, skip_serializing_if = "TokenMerging::is_none")]
    pub token_merging: TokenMerging,
    /// The sampler.
    pub sampler: String,
    /// The share of fresh noise per step, where the sampler leaves a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f32>,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// How many pixels of the file each pixel is wide and high.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub scale: usize,
    /// What it was computed in: the same gives the same picture on every machine.
    pub arithmetic: Arithmetic,
    /// Whether the initial noise was given, and so is not the seed's: such a picture needs it to be made again.
    pub latents_given: bool,
    /// A hash of that noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents_hash: Option<String>,
    /// The picture that it began from, if there was one: it is needed to make this one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Begun>,
    /// What it was drawn from by unCLIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclip: Option<Imagined>,
    /// What was added to the model's layers, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<UsedLora>,
    /// The other model whose decoder was used, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<UsedDecoder>,
    /// What decided how large maps were divided, if they were: that changes the last bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub division: Option<Division>,
}

/// What a picture began from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// A hash of the picture and the mask as they were used.
    pub hash: String,
    /// Whether there was a mask.
    pub masked: bool,
    /// The share of the steps that were taken.
    pub strength: f64,
}

/// What embedding a picture was drawn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imagined {
    /// Steps of the prior.
    pub prior_steps: usize,
    /// The prior's guidance scale.
    pub prior_guidance: f32,
    /// How much noise lay over the embedding.
    pub noise_level: usize,
    /// A hash of the picture that was embedded, if one was: it is needed to make this one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Whether it lay between two, which are not kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub between: bool,
}

impl From<&UnclipRequest> for Imagined {
    fn from(request: &UnclipRequest) -> Self {
        let (picture, between) = match &request.sight {
            Sight::Prompt => (None, false),
            Sight::Picture(picture) => (Some(picture_hash(picture)), false),
            Sight::Between(_) => (None, true),
        };
        Self {
            prior_steps: request.prior_steps,
            prior_guidance: request.prior_guidance.get(),
            noise_level: request.noise_level,
            picture,
            between,
        }
    }
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

impl Begun {
    /// From this picture.
    fn new(init: &InitImage) -> Self {
        Self { hash: init.hash(), masked: init.mask().is_some(), strength: init.strength() }
    }
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
    /// Of a picture that `request` made with the model in `bundle` and what was added to it.
    pub fn new(image: &Image, request: &Request, bundle: &Bundle, additions: &Additions) -> Self {
        let manifest = Self::of_request(request, bundle, additions, image.arithmetic);
        Self { seed: image.seed, division: image.division, ..manifest }
    }

    /// Of the first picture of a request, before it is made.
    pub fn of_request(
        request: &Request,
        bundle: &Bundle,
        additions: &Additions,
        arithmetic: Arithmetic,
    ) -> Self {
        Self {
            version: VERSION.into(),
            pipeline: bundle.pipeline().kind.name().into(),
            model: bundle.pipeline().name.clone(),
            model_hash: bundle.model_hash(),
            prompt: request.prompt.as_str().into(),
            negative: request.negative.as_str().into(),
            syntax: request.syntax,
            clip_skip: request.clip_skip,
            seed: request.seed,
            steps: request.steps,
            guidance: request.guidance_scale.get(),
            guidance_interval: request.guidance_interval,
            feature_cache: request.feature_cache,
            token_merging: request.token_merging,
            sampler: request.sampler.name().into(),
            eta: request.eta.or(request.sampler.default_eta()),
            width: request.size.width_px,
            height: request.size.height_px,
            scale: request.scale,
            arithmetic,
            latents_given: request.latents.is_some(),
            latents_hash: request.latents.as_ref().map(hash),
            init: request.init.as_ref().map(Begun::new),
            unclip: request.unclip.as_ref().map(Imagined::from),
            loras: additions.loras.iter().map(UsedLora::from).collect(),
            vae: additions.decoder.as_deref().map(UsedDecoder::from),
            division: None,
        }
    }

    /// The texts, each with its keyword.
    pub fn texts(&self) -> [(&'static str, String); 2] {
        [(PARAMETERS, self.parameters()), (MANIFEST, self.to_json())]
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a manifest has string keys")
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
        if let Some(begun) = &self.init {
            text += &format!(", Denoising strength: {}", begun.strength);
        }
        if self.clip_skip > 0 {
            // A1111 counts from the last layer on.
            text += &format!(", Clip skip: {}", self.clip_skip + 1);
        }
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

fn once() -> usize {
    1
}

fn is_once(scale: &usize) -> bool {
    *scale == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

/// A hash of latents.
pub(super) fn hash(latents: &Latents) -> String {
    let mut hasher = blake3::Hasher::new();
    latents.values().iter().for_each(|value| _ = hasher.update(&value.to_le_bytes()));
    hasher.finalize().to_hex()[..32].to_owned()
}

/// A hash of a picture.
pub(super) fn picture_hash(picture: &Rgb8) -> String {
    let mut hasher = blake3::Hasher::new();
    for side in [picture.width_px(), picture.height_px()] {
        hasher.update(&(side as u64).to_le_bytes());
    }
    hasher.update(picture.pixels());
    hasher.finalize().to_hex()[..32].to_owned()
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
impl Manifest {
    /// Some manifest.
    pub(super) fn example() -> Self {
        Self {
            version: VERSION.into(),
            pipeline: "stable-diffusion".into(),
            model: "emoji: one, two".into(),
            model_hash: "00ff".into(),
            prompt: "딸기".into(),
            negative: "blur".into(),
            syntax: Syntax::Plain,
            clip_skip: 0,
            seed: u64::MAX,
            steps: 8,
            guidance: 2.5,
            guidance_interval: GuidanceInterval::new(0.25, 0.8).unwrap(),
            feature_cache: 1,
            token_merging: TokenMerging::NONE,
            sampler: "ddim".into(),
            eta: Some(0.0),
            width: 2,
            height: 1,
            scale: 1,
            arithmetic: Arithmetic::I16,
            latents_given: false,
            latents_hash: None,
            init: None,
            unclip: None,
            loras: vec![UsedLora { name: "a.safetensors".into(), hash: "12ab".into(), strength: 0.5 }],
            vae: Some(UsedDecoder { model: "taesd".into(), model_hash: "34cd".into() }),
            division: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_say_what_was_asked_for() {
        let [(_, parameters), (_, json)] = Manifest::example().texts();
        assert_eq!(
            parameters,
            "딸기\nNegative prompt: blur\nSteps: 8, Sampler: DDIM, CFG scale: 2.5, \
             Seed: 18446744073709551615, Size: 2x1, Model hash: 00ff, Model: \"emoji: one, two\", \
             VAE hash: 34cd, VAE: taesd, Lora hashes: \"a.safetensors: 12ab\""
        );
        assert_eq!(Manifest::read(&json).unwrap(), Manifest::example());
        assert!(
            ![
                "init",
                "division",
                "scale",
                "latents_hash",
                "syntax",
                "clip_skip",
                "feature_cache",
                "token_merging"
            ]
            .iter()
            .any(|key| json.contains(key))
        );
    }
}
