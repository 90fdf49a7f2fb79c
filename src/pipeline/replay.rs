//! A picture again, from its manifest: the request that makes it, and the resources that make it to the bit.

use serde::{Deserialize, Serialize};

use super::manifest::{VERSION, hash, picture_hash};
use super::{InitImage, Manifest, Request, RequestError, Sampler, Sight, Size, UnclipError, UnclipRequest};
use crate::bundle::Bundle;
use crate::denoise::guidance::GuidanceScale;
use crate::engine::{Resources, Threads, Tile};
use crate::tensor::{Latents, Rgb8};
use crate::text::Prompt;

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
    /// The picture to embed.
    pub image: Option<Rgb8>,
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
    /// Something that was added to the model was not given, or is not the same.
    #[error("it was drawn with {what} {name} (hash {hash}): give that file with {flag}")]
    Added {
        /// What is needed.
        what: &'static str,
        /// Its name in the manifest.
        name: String,
        /// Its hash in the manifest.
        hash: String,
        /// The flag that takes it.
        flag: &'static str,
    },
    /// It was drawn between two embeddings.
    #[error(
        "it was drawn on the way between two embeddings, which it does not hold: draw it again with --interpolate"
    )]
    Between,
    /// A value that no request can have.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Division {
    /// By these resources.
    pub fn new(resources: &Resources) -> Self {
        let Resources { tile, memory_bytes, .. } = *resources;
        Self { tile, memory_bytes, threads: resources.threads.count() }
    }
}

impl Manifest {
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
        let Givens { latents, init, image } = givens;
        same("noise that was given", "--latents", &self.latents_hash, latents.as_ref().map(hash))?;
        let expected = self.init.as_ref().map(|begun| begun.hash.clone());
        let what = if self.init.as_ref().is_some_and(|begun| begun.masked) {
            ("another picture and a mask", "--init-image and --mask")
        } else {
            ("another picture", "--init-image")
        };
        same(what.0, what.1, &expected, init.as_ref().map(InitImage::hash))?;
        let expected = self.unclip.as_ref().and_then(|imagined| imagined.picture.clone());
        same("the embedding of a picture", "--image", &expected, image.as_ref().map(picture_hash))?;
        let prompt = |text: &str| Prompt::new(text).map_err(RequestError::from);
        let mut request = Request::new(bundle, prompt(&self.prompt)?, self.seed)?;
        request.negative = prompt(&self.negative)?;
        (request.syntax, request.clip_skip) = (self.syntax, self.clip_skip);
        request.size = self.size();
        request.steps = self.steps;
        request.guidance_scale = GuidanceScale::new(self.guidance).map_err(RequestError::from)?;
        request.guidance_interval = self.guidance_interval;
        request.feature_cache = self.feature_cache;
        request.token_merging = self.token_merging;
        request.sampler =
            Sampler::from_name(&self.sampler).ok_or_else(|| ManifestError::Sampler(self.sampler.clone()))?;
        request.eta = self.eta;
        request.scale = self.scale;
        request.latents = latents.filter(|_| self.latents_given);
        request.init = init.filter(|_| self.init.is_some());
        if let Some(imagined) = &self.unclip {
            if imagined.between {
                return Err(ManifestError::Between);
            }
            let scale = GuidanceScale::new(imagined.prior_guidance).map_err(UnclipError::Guidance);
            request.unclip = Some(UnclipRequest {
                sight: image.filter(|_| imagined.picture.is_some()).map_or(Sight::Prompt, Sight::Picture),
                prior_steps: imagined.prior_steps,
                prior_guidance: scale.map_err(RequestError::from)?,
                noise_level: imagined.noise_level,
            });
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Arithmetic;

    #[test]
    fn a_manifest_that_cannot_be_read_says_why() {
        let json = Manifest::example().to_json();
        let error = Manifest::read(&json[..40]).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && !error.contains("version"), "{error}");
        let newer = json.replacen(VERSION, "9.1.0", 1).replacen("\"seed\"", "\"lens\":1,\"seed\"", 1);
        let error = Manifest::read(&newer).unwrap_err().to_string();
        assert!(error.contains("lens") && error.contains("9.1.0") && error.contains(VERSION), "{error}");
    }

    #[test]
    fn maps_are_divided_again_as_they_were() {
        let own = Resources::new(Threads::new(1));
        let whole = Manifest::example().resources(own.clone());
        assert_eq!((whole.tile, whole.arithmetic, whole.threads.count()), (Tile::Off, Arithmetic::I16, 1));
        let division = Division { tile: Tile::Rows(16), memory_bytes: Some(1), threads: 3 };
        let divided = Manifest { division: Some(division), ..Manifest::example() };
        let divided = Manifest::read(&divided.to_json()).unwrap().resources(own);
        assert_eq!(Division::new(&divided), division);
    }
}
