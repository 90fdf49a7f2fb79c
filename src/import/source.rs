//! What is imported: networks, the files that go with them, and how they make a picture together.

mod pixels;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::ImportError;
use super::checkpoint::{Checkpoint, Family as Generation, SingleFile};
use super::config_file::{parse, parse_python};
use super::family::Family;
use super::ours::Ours;
use super::{folder, vocabulary};
use crate::bundle::{
    Base, Bundle, BundleError, Component, Licence, Pipeline, PipelineKind, SuperRes, Unclip,
};
use crate::engine::free_dimension;

/// Files by their names in the bundle.
pub type Files = Vec<(String, Vec<u8>)>;

/// The configurations of unCLIP's two other schedulers: that of the prior, and that of noise over embeddings.
const UNCLIP_SCHEDULERS: [&str; 2] =
    ["prior_scheduler/scheduler_config.json", "image_noising_scheduler/scheduler_config.json"];

/// Steps of the prior, its guidance, and that of the UNet behind it.
///
/// Source: the defaults of `StableUnCLIPPipeline` in diffusers 0.42.1.
const PRIOR_STEPS: usize = 25;
const PRIOR_GUIDANCE: f64 = 4.0;
const UNCLIP_GUIDANCE: f64 = 10.0;

/// One network of a model.
pub struct Network {
    /// Which one.
    pub component: Component,
    /// Its `config.json`, or what would stand in it.
    pub config: Value,
    /// Where that stands, for messages.
    pub file: PathBuf,
    /// Where its graph or its weights are.
    pub origin: Origin,
}

/// Where a network comes from.
pub enum Origin {
    /// A graph with its weights.
    Onnx(PathBuf),
    /// Weights, whose graph follows from the configuration.
    Checkpoint(Arc<Checkpoint>),
}

/// A model, all but its weights read.
pub struct Source {
    path: PathBuf,
    networks: Vec<Network>,
    scheduler: Value,
    files: Files,
    ours: Ours,
    /// Of the stage that makes pictures larger, if there is one.
    super_res_scheduler: Option<Value>,
    /// `model_index.json`, or null.
    index: Value,
    /// The schedulers of the prior and of noise over embeddings, or null.
    unclip_schedulers: [Value; 2],
    /// The model that has the components that are not here.
    base: Option<Arc<Bundle>>,
}

impl Source {
    /// Reads the configuration of the folder or file at `path`. `prediction_type` is what the UNet predicts, where the
    /// source's word is not to be taken.
    ///
    /// # Errors
    /// - [`ImportError::Read`], [`ImportError::Config`]: a file that cannot be read or is not JSON.
    /// - [`ImportError::NoComponents`] if there is nothing to import.
    /// - [`ImportError::Source`]: weights that cannot be used.
    pub fn open(path: &Path, prediction_type: Option<&str>) -> Result<Self, ImportError> {
        // What is not there was probably meant to be a folder, unless its name has an ending.
        let is_folder = path.is_dir() || !path.exists() && path.extension().is_none();
        let mut source = if is_folder { Self::of_folder(path)? } else { Self::of_file(path)? };
        if let (Some(prediction_type), Value::Object(scheduler)) = (prediction_type, &mut source.scheduler) {
            scheduler.insert("prediction_type".into(), prediction_type.into());
        }
        match source.kind() {
            PipelineKind::Pixels => source.check_pixels()?,
            kind if source.ours.classes.is_some() => {
                let reason =
                    format!("`classes` are for pipelines of pixels, and this is one of the kind {kind}");
                return Err(ImportError::Config { path: path.join("tintype.json"), reason });
            }
            _ => {}
        }
        Ok(source)
    }

    fn of_folder(path: &Path) -> Result<Self, ImportError> {
        let networks = folder::networks(path)?;
        if networks.is_empty() {
            return Err(ImportError::NoComponents { path: path.to_owned() });
        }
        let has_unet = networks.iter().any(|network| network.component == Component::Unet);
        let scheduler = path.join("scheduler/scheduler_config.json");
        // Without a UNet there is nothing to schedule.
        let is_pipeline = !path.join("config.json").exists();
        let scheduler = match has_unet && is_pipeline || scheduler.exists() {
            true => parse_python(&scheduler)?,
            false => Value::Object(serde_json::Map::new()),
        };
        let super_res_scheduler = match networks.iter().any(|n| n.component == Component::SuperResFirst) {
            true => Some(parse_python(&path.join("super_res_scheduler/scheduler_config.json"))?),
            false => None,
        };
        let index = path.join("model_index.json");
        let index = if index.exists() { parse(&index)? } else { Value::Null };
        let files = folder::files(path, &networks)?;
        let ours = Ours::of_folder(path)?;
        let mut unclip_schedulers = [Value::Null, Value::Null];
        for (name, scheduler) in UNCLIP_SCHEDULERS.iter().zip(&mut unclip_schedulers) {
            let file = path.join(name);
            if file.exists() {
                *scheduler = parse_python(&file)?;
            }
        }
        let plain = Self::plain(path, networks, scheduler, files);
        Ok(Self { super_res_scheduler, ours, index, unclip_schedulers, ..plain })
    }

    fn of_file(path: &Path) -> Result<Self, ImportError> {
        let file = SingleFile::open(path)?;
        let network = |(component, config, checkpoint)| Network {
            component,
            config,
            file: path.to_owned(),
            origin: Origin::Checkpoint(checkpoint),
        };
        let networks: Vec<Network> = file.networks()?.into_iter().map(network).collect();
        // What fills the rest of a text, for each of the tokenizers.
        let pads: &[&str] = match file.family() {
            Generation::One => &[vocabulary::END],
            Generation::Two => &[vocabulary::FILLER],
            Generation::Xl => &[vocabulary::END, vocabulary::FILLER],
        };
        for network in &networks {
            vocabulary::check(path, &network.config)?;
        }
        Ok(Self::plain(path, networks, file.scheduler(), vocabulary::files(pads)))
    }

    /// Of networks, the UNet's scheduler and files alone.
    fn plain(path: &Path, networks: Vec<Network>, scheduler: Value, files: Files) -> Self {
        let (path, ours, index) = (path.to_owned(), Ours::default(), Value::Null);
        let (super_res_scheduler, unclip_schedulers, base) = (None, [Value::Null, Value::Null], None);
        Self { path, networks, scheduler, files, ours, super_res_scheduler, index, unclip_schedulers, base }
    }

    /// With the model that `tintype.json` names as base, which lies in this folder.
    ///
    /// # Errors
    /// [`ImportError::Base`] if it cannot be used, or has a base itself.
    pub fn with_base(self, folder: &Path) -> Result<Self, ImportError> {
        let Some(name) = &self.ours.base else { return Ok(self) };
        let refused = |source| ImportError::Base { path: self.path.join("tintype.json"), source };
        let path = folder.join(name);
        let base = Bundle::open(&path).map_err(refused)?;
        if base.base().is_some() {
            return Err(refused(BundleError::BaseOfBase { path }));
        }
        Ok(Self { base: Some(Arc::new(base)), ..self })
    }

    /// Whether some components are those of another model.
    pub fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// Its networks.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// A component's `config.json`.
    fn config(&self, component: Component) -> &Value {
        let found = self.networks.iter().find(|network| network.component == component);
        found.map_or(&Value::Null, |network| &network.config)
    }

    /// The files that are bundled as they are.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, contents)| (&name[..], &contents[..]))
    }

    /// The licences that `tintype.json` names.
    pub fn licences(&self) -> Vec<Licence> {
        self.ours.licences.clone()
    }

    /// The modules whose weights stay f16 in an int8 model, if `tintype.json` names them.
    pub fn f16_modules(&self) -> Option<&[String]> {
        self.ours.f16.as_deref()
    }

    /// The relative L2 up to which an int8 matrix has one scale for each channel.
    pub fn channel_error_max(&self) -> f64 {
        self.ours.channel_error_max
    }

    /// The size of a free dimension for the analysis of a graph: any that the network can take, height and
    /// width different so that they are not mistaken for each other.
    pub fn analysis_size(&self, component: Component, input: &str, at: usize) -> usize {
        let numbers = |component, key: &str| self.number(component, key);
        free_dimension(&numbers, component, input, at, [128, 192], 8)
    }

    /// How the components go together.
    pub fn pipeline(&self) -> Pipeline {
        let kind = self.kind();
        if kind == PipelineKind::Pixels {
            return self.pixels();
        }
        let vae = if self.config(Component::VaeDecoder).is_null() {
            Component::VaeEncoder
        } else {
            Component::VaeDecoder
        };
        // The tiny autoencoder has a list for each of its halves.
        let widths = ["decoder_block_out_channels", "block_out_channels"].map(|key| &self.config(vae)[key]);
        let levels = widths.iter().find_map(|widths| widths.as_array()).map_or(4, Vec::len);
        let scale = 1usize << levels.clamp(1, 8).saturating_sub(1);
        let cells = self.number(Component::Unet, "sample_size").unwrap_or(64);
        let is_told_guidance = self.number(Component::Unet, "time_cond_proj_dim").is_some();
        let is_xl = kind == PipelineKind::StableDiffusionXl;
        let zeros = self.index["force_zeros_for_empty_prompt"].as_bool().unwrap_or(true);
        let family = Family::new(&self.scheduler, is_told_guidance, is_xl);
        let guidance = if kind == PipelineKind::Unclip { UNCLIP_GUIDANCE } else { family.guidance };
        let factor = |key: &str| self.config(vae).get(key).and_then(Value::as_f64);
        let pipeline = Pipeline {
            kind,
            name: self.name(),
            scheduler: self.scheduler.clone(),
            scaling_factor: factor("scaling_factor").unwrap_or(0.18215),
            shift_factor: factor("shift_factor").unwrap_or(0.0),
            latent_channels: self.number(vae, "latent_channels").unwrap_or(4),
            vae_scale_factor: scale,
            default_width_px: cells * scale,
            default_height_px: cells * scale,
            default_steps: family.steps,
            default_guidance: guidance,
            sampler: family.sampler.name().into(),
            force_zeros_for_empty_prompt: is_xl.then_some(zeros),
            classes: None,
            super_res: self.super_res(),
            unclip: (kind == PipelineKind::Unclip).then(|| self.unclip()),
            base: None,
            report: None,
            provenance: self.ours.provenance.clone(),
        };
        let pipeline = self.on_base(pipeline);
        Pipeline {
            default_steps: self.ours.default_steps.unwrap_or(pipeline.default_steps),
            default_guidance: self.ours.default_guidance.unwrap_or(pipeline.default_guidance),
            sampler: self.ours.sampler.clone().unwrap_or(pipeline.sampler),
            ..pipeline
        }
    }

    /// How pictures are made larger: in as many steps as diffusers' `UnCLIPPipeline` takes.
    fn super_res(&self) -> Option<SuperRes> {
        let scheduler = self.super_res_scheduler.clone()?;
        Some(SuperRes { scheduler, default_steps: 7 })
    }

    /// What unCLIP knows beside.
    fn unclip(&self) -> Unclip {
        let [prior_scheduler, image_noising_scheduler] = self.unclip_schedulers.clone();
        Unclip {
            prior_scheduler,
            default_prior_steps: self.ours.default_prior_steps.unwrap_or(PRIOR_STEPS),
            default_prior_guidance: self.ours.default_prior_guidance.unwrap_or(PRIOR_GUIDANCE),
            image_noising_scheduler: Some(image_noising_scheduler).filter(|scheduler| !scheduler.is_null()),
            embedding_norm: self.ours.embedding_norm,
        }
    }

    /// The pipeline of a model that leans on another: what is drawn with the base's UNet is drawn as there.
    fn on_base(&self, pipeline: Pipeline) -> Pipeline {
        let (Some(bundle), Some(file)) = (&self.base, &self.ours.base) else { return pipeline };
        let base = Some(Base { file: file.clone(), model_hash: bundle.model_hash() });
        if !self.config(Component::Unet).is_null() {
            return Pipeline { base, ..pipeline };
        }
        let Pipeline { kind, name, unclip, provenance, .. } = pipeline;
        Pipeline { kind, name, unclip, base, provenance, report: None, ..bundle.pipeline().clone() }
    }

    /// How they go together: by the class of the pipeline that published them, or by what the UNet is told.
    fn kind(&self) -> PipelineKind {
        match self.index["_class_name"].as_str().unwrap_or_default() {
            "StableUnCLIPPipeline" | "StableUnCLIPImg2ImgPipeline" | "UnCLIPPipeline" => PipelineKind::Unclip,
            class if pixels::PIPELINES.contains(&class) => PipelineKind::Pixels,
            _ if self.config(Component::Unet)["_class_name"] == "UNet2DModel" => PipelineKind::Pixels,
            _ if self.config(Component::Unet)["addition_embed_type"] == "text_time" => {
                PipelineKind::StableDiffusionXl
            }
            _ => PipelineKind::StableDiffusion,
        }
    }

    fn name(&self) -> String {
        let name = if self.path.is_dir() { self.path.file_name() } else { self.path.file_stem() };
        let name = name.map(|name| name.to_string_lossy().into_owned());
        self.ours.name.clone().or(name).unwrap_or_else(|| "model".into())
    }

    fn number(&self, component: Component, key: &str) -> Option<usize> {
        self.config(component).get(key)?.as_u64().and_then(|n| usize::try_from(n).ok())
    }
}
