//! The networks and files of a folder: of ONNX graphs, as optimum writes it, or of weights, as diffusers does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::ImportError;
use super::architectures::ArchitectureError;
use super::checkpoint::Checkpoint;
use super::config_file::{parse, read};
use super::source::{Files, Network, Origin};
use super::vocabulary;
use crate::bundle::Component;
use crate::clip::SafetyChecker;
use crate::error::chain;
use crate::tensor_file::TensorFileError;

/// Files that go into the bundle as they are.
const BUNDLED: &[&str] = &[
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/special_tokens_map.json",
    "prior_tokenizer/vocab.json",
    "prior_tokenizer/merges.txt",
    "prior_tokenizer/tokenizer_config.json",
    "prior_tokenizer/special_tokens_map.json",
    PRIOR_STATISTICS,
    NORMALIZER_STATISTICS,
    "image_encoder/preprocessor_config.json",
    "safety_checker/preprocessor_config.json",
    "feature_extractor/preprocessor_config.json",
    SAFETY_CONCEPTS,
];

/// Mean and standard deviation of the embeddings that a prior makes, and of those that noise is put over.
const PRIOR_STATISTICS: &str = "prior/statistics.json";
const NORMALIZER_STATISTICS: &str = "image_normalizer/statistics.json";

/// The concepts that a safety checker blocks.
const SAFETY_CONCEPTS: &str = "safety_checker/concepts.json";

/// What the framework that a component comes from computed with it; goes into the bundle as `selftest/NAME.npz`.
const REFERENCE: &str = "reference.npz";
/// A reference larger than this is no part of a model.
const REFERENCE_MAX_BYTES: u64 = 4 << 20;

/// How weights are named in a folder, best first: in one file or in several, as they are or with fewer bits.
const WEIGHTS: &[&str] = &[
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.safetensors.index.json",
    "model.safetensors.index.fp16.json",
    "model.fp16.safetensors.index.json",
];
/// How torch names pickles.
const PICKLES: &[&str] =
    &["diffusion_pytorch_model.bin", "pytorch_model.bin", "diffusion_pytorch_model.fp16.bin"];

/// The networks of a pipeline's folder, or of a folder that is one network.
///
/// # Errors
/// [`ImportError`].
pub fn networks(path: &Path) -> Result<Vec<Network>, ImportError> {
    if path.join("config.json").exists() && !path.join("model_index.json").exists() {
        return one(path);
    }
    let mut networks = Vec::new();
    let mut vae = None;
    for &component in Component::ALL {
        let own = path.join(component.name());
        if own.join("model.onnx").exists() {
            let config = parse(&own.join("config.json"))?;
            networks.push(Network {
                component,
                config,
                file: own.clone(),
                origin: Origin::Onnx(own.join("model.onnx")),
            });
            continue;
        }
        if component == Component::SafetyChecker {
            if own.exists() {
                log::warn!(
                    "{} is left out: tools/export/safety_checker.py makes a folder of it that can be taken over",
                    own.display()
                );
            }
            continue;
        }
        let is_vae = matches!(component, Component::VaeDecoder | Component::VaeEncoder);
        let folder = if is_vae { path.join("vae") } else { own };
        let found = match (&vae, is_vae) {
            (Some(checkpoint), true) => Some(Arc::clone(checkpoint)),
            _ => checkpoint(&folder)?,
        };
        if let Some(checkpoint) = found {
            if is_vae {
                vae = Some(checkpoint.clone());
            }
            networks.push(network(component, &folder, checkpoint)?);
        }
    }
    Ok(networks)
}

/// The networks of a folder that has no pipeline around it.
fn one(path: &Path) -> Result<Vec<Network>, ImportError> {
    let file = path.join("config.json");
    let config: Value = parse(&file)?;
    let class = config["_class_name"].as_str().or(config["architectures"][0].as_str());
    let class = class.or(config["model_type"].as_str()).unwrap_or_default();
    let components: &[Component] = match class {
        "AutoencoderKL" | "AutoencoderTiny" => &[Component::VaeDecoder, Component::VaeEncoder],
        "UNet2DConditionModel" | "UNet2DModel" => &[Component::Unet],
        "CLIPTextModel" | "CLIPTextModelWithProjection" | "clip_text_model" => &[Component::TextEncoder],
        "CLIPVisionModelWithProjection" | "clip_vision_model" => &[Component::ImageEncoder],
        _ => {
            let expected = "a network of Stable Diffusion, or a UNet2DModel";
            let got = format!("the configuration of `{class}`");
            return Err(ImportError::Source(ArchitectureError::Unknown { file, got, expected }));
        }
    };
    let Some(checkpoint) = checkpoint(path)? else {
        return Err(ImportError::NoComponents { path: path.to_owned() });
    };
    components.iter().map(|&component| network(component, path, checkpoint.clone())).collect()
}

fn network(component: Component, folder: &Path, checkpoint: Arc<Checkpoint>) -> Result<Network, ImportError> {
    let file = folder.join("config.json");
    Ok(Network { component, config: parse(&file)?, file, origin: Origin::Checkpoint(checkpoint) })
}

/// The weights of a folder, if it has any.
fn checkpoint(folder: &Path) -> Result<Option<Arc<Checkpoint>>, ImportError> {
    let find = |names: &[&str]| -> Option<PathBuf> {
        names.iter().map(|name| folder.join(name)).find(|path| path.exists())
    };
    let opened = match find(WEIGHTS) {
        Some(path) if path.extension().is_some_and(|extension| extension == "json") => {
            Checkpoint::open_sharded(&path)
        }
        Some(path) => Checkpoint::open(&path),
        None => match find(PICKLES) {
            Some(path) => Err(TensorFileError::Pickle { path }),
            None => return Ok(None),
        },
    };
    Ok(Some(Arc::new(opened.map_err(ArchitectureError::from)?)))
}

/// The files that go into the bundle beside the networks.
///
/// # Errors
/// [`ImportError`].
pub fn files(path: &Path, networks: &[Network]) -> Result<Files, ImportError> {
    let mut files = Files::new();
    for &name in BUNDLED.iter().filter(|name| path.join(name).exists()) {
        files.push((name.to_owned(), read(&path.join(name))?));
    }
    for tokenizer in ["tokenizer", "tokenizer_2", "prior_tokenizer"] {
        let joint = path.join(tokenizer).join("tokenizer.json");
        let vocab = format!("{tokenizer}/vocab.json");
        if joint.exists() && files.iter().all(|(name, _)| *name != vocab) {
            files.extend(vocabulary::taken_apart(tokenizer, &joint)?);
        }
    }
    for (name, folder, tensors) in [
        (PRIOR_STATISTICS, "prior", ["clip_mean", "clip_std"]),
        (NORMALIZER_STATISTICS, "image_normalizer", ["mean", "std"]),
    ] {
        let is_there = files.iter().any(|(file, _)| file == name);
        if let (false, Some(checkpoint)) = (is_there, checkpoint(&path.join(folder))?) {
            files.push((name.to_owned(), statistics(&checkpoint, tensors)?));
        }
    }
    for Network { component, .. } in networks {
        let reference = path.join(component.name()).join(REFERENCE);
        match std::fs::metadata(&reference) {
            Ok(file) if file.len() <= REFERENCE_MAX_BYTES => {
                files.push((format!("selftest/{}.npz", component.name()), read(&reference)?));
            }
            Ok(file) => log::warn!("{} is left out: {} bytes", reference.display(), file.len()),
            Err(_) => {}
        }
    }
    if networks.iter().any(|network| network.component == Component::SafetyChecker) {
        check_safety(path, &files)?;
    }
    Ok(files)
}

/// Mean and standard deviation as the bundle has them.
fn statistics(checkpoint: &Checkpoint, tensors: [&str; 2]) -> Result<Vec<u8>, ImportError> {
    let read = |name: &str| {
        let width = checkpoint.shape(name).map_or(0, |shape| shape.iter().product());
        Ok::<_, ArchitectureError>(checkpoint.weight(name, &[width])?.read())
    };
    let [mean, std] = [read(tensors[0])?, read(tensors[1])?];
    Ok(serde_json::json!({ "mean": mean, "std": std }).to_string().into_bytes())
}

/// A safety checker without concepts would let everything through.
fn check_safety(path: &Path, files: &Files) -> Result<(), ImportError> {
    let wrong = |reason| ImportError::Config { path: path.join(SAFETY_CONCEPTS), reason };
    let file = files.iter().find(|(name, _)| name == SAFETY_CONCEPTS);
    let (_, bytes) = file.ok_or_else(|| {
        wrong("it is not there: tools/export/safety_checker.py makes the folder of a safety checker".into())
    })?;
    SafetyChecker::from_json(bytes).map(drop).map_err(|error| wrong(chain(&error)))
}
