//! A source whose one network draws pixels.

use std::path::Path;

use serde_json::Value;

use super::super::ImportError;
use super::Source;
use crate::bundle::{Component, Pipeline, PipelineKind};
use crate::pipeline::Sampler;

/// The pipelines of diffusers that have one.
pub const PIPELINES: [&str; 2] = ["DDPMPipeline", "DDIMPipeline"];

impl Source {
    /// How it draws; the pixels are its latents. Without words of the maker it takes as many steps as diffusers'
    /// `DDIMPipeline`, and is not guided.
    pub(super) fn pixels(&self) -> Pipeline {
        let unet = self.config(Component::Unet);
        let size = |at: usize| unet["sample_size"].get(at).unwrap_or(&unet["sample_size"]).as_u64();
        let [height, width] = [0, 1].map(|at| size(at).and_then(|px| usize::try_from(px).ok()).unwrap_or(32));
        Pipeline {
            kind: PipelineKind::Pixels,
            name: self.name(),
            scheduler: self.scheduler.clone(),
            scaling_factor: 1.0,
            shift_factor: 0.0,
            latent_channels: self.number(Component::Unet, "in_channels").unwrap_or(3),
            vae_scale_factor: 1,
            default_width_px: width,
            default_height_px: height,
            default_steps: self.ours.default_steps.unwrap_or(50),
            default_guidance: self.ours.default_guidance.unwrap_or(1.0),
            sampler: self.ours.sampler.clone().unwrap_or_else(|| Sampler::Ddim.name().into()),
            force_zeros_for_empty_prompt: None,
            classes: self.ours.classes.clone(),
            super_res: None,
            unclip: None,
            base: None,
            report: None,
            provenance: self.ours.provenance.clone(),
        }
    }

    /// Checks that what is to draw pixels can do so by itself, and that its classes are the network's.
    pub(super) fn check_pixels(&self) -> Result<(), ImportError> {
        let wrong = |file: &Path, reason: String| Err(ImportError::Config { path: file.to_owned(), reason });
        let index = self.path.join("model_index.json");
        if let Some(other) = self.networks.iter().find(|network| network.component != Component::Unet) {
            let name = other.component.name();
            return wrong(&index, format!("a pipeline of pixels has a unet and no {name}: leave it out"));
        }
        let Some(unet) = self.networks.first().filter(|_| !self.index.is_null()) else { return Ok(()) };
        let class = self.index["_class_name"].as_str().unwrap_or("no pipeline");
        if !PIPELINES.contains(&class) {
            let pipelines = PIPELINES.join(" or ");
            return wrong(
                &index,
                format!("it is `{class}`, and a UNet2DModel draws pixels in a {pipelines}"),
            );
        }
        for (key, expected) in [
            ("_class_name", "UNet2DModel".into()),
            ("in_channels", 3.into()),
            ("out_channels", 3.into()),
            ("class_embed_type", Value::Null),
        ] {
            if unet.config[key] != expected {
                let got = &unet.config[key];
                return wrong(
                    &unet.file,
                    format!("`{key}` is {got}, expected {expected} in a pipeline of pixels"),
                );
            }
        }
        let Some(classes) = &self.ours.classes else { return Ok(()) };
        let count = self.number(Component::Unet, "num_class_embeds").unwrap_or(0);
        let needed = classes.names.len().max(classes.null.map_or(0, |null| null.saturating_add(1)));
        if needed > count {
            let reason =
                format!("`classes` needs {needed} numbers, and the network has {count} (num_class_embeds)");
            return wrong(&self.path.join("tintype.json"), reason);
        }
        Ok(())
    }
}
