//! The request of a picture, as texts that travel inside of it, and back.
//!
//! `parameters` is the line that A1111's web UI and its many readers know; `tintype` is a JSON object with everything
//! that makes the same picture again.

use serde::{Deserialize, Serialize};

use super::{Image, InitImage, Request, RequestError, Sampler, Size};
use crate::bundle::Bundle;
use crate::denoise::guidance::GuidanceScale;
use crate::engine::{Resources, Threads, Tile};
use crate::kernels::Arithmetic;
use crate::tensor::Latents;
use crate::text::Prompt;

/// The keyword of the A1111 text.
pub const PARAMETERS: &str = "parameters";
/// The keyword of the manifest.
pub const MANIFEST: &str = "tintype";
/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    /// A hash of that noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latents_hash: Option<String>,
    /// The picture that it began from, if there was one: it is needed to make this one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Begun>,
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

/// What decides how the autoencoder's maps are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Division {
    /// How they were to be worked on.
    pub tile: Tile,
    /// The memory that was allowed.
    pub memory_bytes: Option<usize>,
    /// The threads that shared it.
    pub threads: usize,
}

/// What a request needs beside its manifest.
#[derive(Debug, Default)]
pub struct Givens {
    /// The initial noise.
    pub latents: Option<Latents>,
    /// The picture to begin from.
    pub init: Option<InitImage>,
}

/// Why a manifest does not make a picture again.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The text is no manifest, or one of another version that has more to it.
    #[error(
        "its manifest cannot be read: {reason}{}",
        version.as_ref().map_or(String::new(), |v| format!(" (it was made by version {v}, and this is {VERSION})"))
    )]
    Damaged {
        /// What is wrong with it.
        reason: String,
        /// The version that made it, if that is another one.
        version: Option<String>,
    },
    /// The model is another one.
    #[error(
        "it was drawn with the model {} (hash {}), and this is {} (hash {}): name its file with --model",
        expected[0], expected[1], got[0], got[1]
    )]
    Model {
        /// Name and hash in the manifest.
        expected: [String; 2],
        /// Name and hash of the model that is there.
        got: [String; 2],
    },
    /// It was drawn with a sampler that is not known.
    #[error("it was drawn with the sampler `{0}`, which is not known here")]
    Sampler(String),
    /// Something that the picture was made from was not given, or is not the same.
    #[error("it was drawn from {what}: give {} with {flag}", if *given { "the same" } else { "it" })]
    Given {
        /// What is needed.
        what: &'static str,
        /// The flag that takes it.
        flag: &'static str,
        /// Whether another one was given.
        given: bool,
    },
    /// A value that no request can have.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Begun {
    /// From this picture.
    fn new(init: &InitImage) -> Self {
        Self { hash: init.hash(), masked: init.mask().is_some(), strength: init.strength() }
    }
}

impl Division {
    /// By these resources.
    pub fn new(resources: &Resources) -> Self {
        let Resources { tile, memory_bytes, .. } = *resources;
        Self { tile, memory_bytes, threads: resources.threads.count() }
    }
}

impl Manifest {
    /// Of a picture that `request` made with the model in `bundle`.
    pub fn new(image: &Image, request: &Request, bundle: &Bundle) -> Self {
        let manifest = Self::of_request(request, bundle, image.arithmetic);
        Self { seed: image.seed, division: image.division, ..manifest }
    }

    /// Of the first picture of a request, before it is made.
    pub fn of_request(request: &Request, bundle: &Bundle, arithmetic: Arithmetic) -> Self {
        Self {
            version: VERSION.into(),
            pipeline: bundle.pipeline().kind.clone(),
            model: bundle.pipeline().name.clone(),
            model_hash: bundle.model_hash(),
            prompt: request.prompt.as_str().into(),
            negative: request.negative.as_str().into(),
            seed: request.seed,
            steps: request.steps,
            guidance: request.guidance_scale.get(),
            sampler: request.sampler.name().into(),
            eta: request.eta.or(request.sampler.default_eta()),
            width: request.size.width_px,
            height: request.size.height_px,
            arithmetic,
            latents_given: request.latents.is_some(),
            latents_hash: request.latents.as_ref().map(hash),
            init: request.init.as_ref().map(Begun::new),
            division: None,
        }
    }

    /// The manifest that `text` is.
    ///
    /// # Errors
    /// [`ManifestError::Damaged`].
    pub fn read(text: &str) -> Result<Self, ManifestError> {
        serde_json::from_str(text).map_err(|error| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            let version = value["version"].as_str().filter(|version| *version != VERSION);
            ManifestError::Damaged { reason: error.to_string(), version: version.map(str::to_owned) }
        })
    }

    /// Whether another version of the program made the picture, which may have computed otherwise.
    pub fn is_foreign(&self) -> bool {
        self.version != VERSION
    }

    /// The size of the picture.
    pub fn size(&self) -> Size {
        Size { width_px: self.width, height_px: self.height }
    }

    /// The request that makes the picture again with the model in `bundle`.
    ///
    /// # Errors
    /// [`ManifestError`], all but [`ManifestError::Damaged`].
    pub fn request(&self, bundle: &Bundle, givens: Givens) -> Result<Request, ManifestError> {
        let got = [bundle.pipeline().name.clone(), bundle.model_hash()];
        if got[1] != self.model_hash {
            return Err(ManifestError::Model {
                expected: [self.model.clone(), self.model_hash.clone()],
                got,
            });
        }
        let same = |what, flag, expected: &Option<String>, got: Option<String>| match got == *expected {
            true => Ok(()),
            false if expected.is_none() => Ok(()),
            false => Err(ManifestError::Given { what, flag, given: got.is_some() }),
        };
        let Givens { latents, init } = givens;
        same("noise that was given", "--latents", &self.latents_hash, latents.as_ref().map(hash))?;
        let expected = self.init.as_ref().map(|begun| begun.hash.clone());
        let what = if self.init.as_ref().is_some_and(|begun| begun.masked) {
            ("another picture and a mask", "--init-image and --mask")
        } else {
            ("another picture", "--init-image")
        };
        same(what.0, what.1, &expected, init.as_ref().map(InitImage::hash))?;
        let prompt = |text: &str| Prompt::new(text).map_err(RequestError::from);
        let mut request = Request::new(bundle, prompt(&self.prompt)?, self.seed)?;
        request.negative = prompt(&self.negative)?;
        request.size = self.size();
        request.steps = self.steps;
        request.guidance_scale = GuidanceScale::new(self.guidance).map_err(RequestError::from)?;
        request.sampler =
            Sampler::from_name(&self.sampler).ok_or_else(|| ManifestError::Sampler(self.sampler.clone()))?;
        request.eta = self.eta;
        request.latents = latents.filter(|_| self.latents_given);
        request.init = init.filter(|_| self.init.is_some());
        Ok(request)
    }

    /// The resources that make the picture again, to the bit, from those that there are.
    pub fn resources(&self, own: Resources) -> Resources {
        let own = Resources { arithmetic: self.arithmetic, ..own };
        match self.division {
            Some(Division { tile, memory_bytes, threads }) => {
                Resources { tile, memory_bytes, threads: Threads::new(threads.clamp(1, 256)), ..own }
            }
            None => Resources { tile: Tile::Off, ..own },
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
        text
    }
}

/// A hash of latents.
fn hash(latents: &Latents) -> String {
    let mut hasher = blake3::Hasher::new();
    latents.values().iter().for_each(|value| _ = hasher.update(&value.to_le_bytes()));
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
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            version: VERSION.into(),
            pipeline: "stable-diffusion".into(),
            model: "emoji: one, two".into(),
            model_hash: "00ff".into(),
            prompt: "딸기".into(),
            negative: "blur".into(),
            seed: u64::MAX,
            steps: 8,
            guidance: 2.5,
            sampler: "ddim".into(),
            eta: Some(0.0),
            width: 2,
            height: 1,
            arithmetic: Arithmetic::I16,
            latents_given: false,
            latents_hash: None,
            init: None,
            division: None,
        }
    }

    #[test]
    fn the_texts_say_what_was_asked_for() {
        let [(_, parameters), (_, json)] = manifest().texts();
        assert_eq!(
            parameters,
            "딸기\nNegative prompt: blur\nSteps: 8, Sampler: DDIM, CFG scale: 2.5, \
             Seed: 18446744073709551615, Size: 2x1, Model hash: 00ff, Model: \"emoji: one, two\""
        );
        assert_eq!(Manifest::read(&json).unwrap(), manifest());
        assert!(!["init", "division", "latents_hash"].iter().any(|key| json.contains(key)));
    }

    #[test]
    fn a_manifest_that_cannot_be_read_says_why() {
        let json = manifest().to_json();
        let error = Manifest::read(&json[..40]).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && !error.contains("version"), "{error}");
        let newer = json.replacen(VERSION, "9.1.0", 1).replacen("\"seed\"", "\"lens\":1,\"seed\"", 1);
        let error = Manifest::read(&newer).unwrap_err().to_string();
        assert!(error.contains("lens") && error.contains("9.1.0") && error.contains(VERSION), "{error}");
    }

    #[test]
    fn maps_are_divided_again_as_they_were() {
        let own = Resources::new(Threads::new(1));
        let whole = manifest().resources(own.clone());
        assert_eq!((whole.tile, whole.arithmetic, whole.threads.count()), (Tile::Off, Arithmetic::I16, 1));
        let division = Division { tile: Tile::Rows(16), memory_bytes: Some(1), threads: 3 };
        let divided = Manifest { division: Some(division), ..manifest() };
        let divided = Manifest::read(&divided.to_json()).unwrap().resources(own);
        assert_eq!(Division::new(&divided), division);
    }
}
