//! A picture made larger by diffusion: the last stage of unCLIP, as Karlo has it.
//!
//! ```text
//! small picture -> the size of the networks, bicubic -> beside the noise, at every step
//! noise         -> super_res_first, all steps but the last -> super_res_last -> large picture
//! ```
//! Source: Ramesh et al. 2022, section 2.1, arXiv:2204.06125; diffusers 0.42.1, `pipeline_unclip.py`.

use std::sync::Arc;

use super::text_to_image::timed;
use super::{PipelineError, Seconds};
use crate::bundle::{Bundle, Component};
use crate::denoise::Sampler as _;
use crate::denoise::network::Network;
use crate::denoise::noise::TorchGenerator;
use crate::denoise::run::{At, Observer, walk};
use crate::denoise::unclip::Unclip;
use crate::engine::{NamedTensor, Resources};
use crate::picture::resize;
use crate::tensor::Latents;

/// Red, green and blue.
const CHANNELS: usize = 3;

/// The stage of a model that has it.
pub struct SuperResolution {
    bundle: Arc<Bundle>,
    resources: Resources,
    scheduler: serde_json::Value,
    /// Steps if nobody asks for others.
    default_steps: usize,
    side_px: usize,
    seconds: Seconds,
}

impl SuperResolution {
    /// Of the model in `bundle`; `None` if it has no such stage. Nothing is loaded yet.
    pub fn new(bundle: Arc<Bundle>, resources: Resources) -> Option<Self> {
        let super_res = bundle.pipeline().super_res.clone()?;
        let side = bundle.component(Component::SuperResFirst)?.config["sample_size"].as_u64()?;
        let side_px = usize::try_from(side).ok()?;
        bundle.component(Component::SuperResLast)?;
        let (scheduler, default_steps) = (super_res.scheduler, super_res.default_steps);
        Some(Self { bundle, resources, scheduler, default_steps, side_px, seconds: Seconds::default() })
    }

    /// Steps if nobody asks for others.
    pub fn default_steps(&self) -> usize {
        self.default_steps
    }

    /// Width and height of what it makes, in pixels.
    pub fn side_px(&self) -> usize {
        self.side_px
    }

    /// Where the time went: loading and denoising.
    pub fn seconds(&self) -> Seconds {
        self.seconds
    }

    /// Makes a picture, `[1, 3, height, width]` and -1 to 1, as large as the networks draw: `[1, 3, side, side]`. `generator` is
    /// read on, as diffusers does with the one of the stages before.
    ///
    /// # Errors
    /// [`PipelineError`]: the scheduler's configuration, the number of steps, or a network.
    pub fn upscale(
        &mut self,
        picture: &Latents,
        steps: usize,
        generator: &mut TorchGenerator,
        observer: &mut dyn Observer,
    ) -> Result<Latents, PipelineError> {
        let mut sampler = Unclip::new(&self.scheduler, steps)?;
        let side = self.side_px;
        let [height, width] = [picture.height_cells(), picture.width_cells()];
        let beside = resize(picture.values(), [height, width], [side; 2]);
        let mut noise = vec![0.0; CHANNELS * side * side];
        generator.fill_normal(&mut noise);
        let mut latents = Latents::new(noise, CHANNELS, side, side)?;
        let last = sampler.steps() - 1;
        // The networks are loaded one after the other.
        for (component, steps) in
            [(Component::SuperResFirst, 0..last), (Component::SuperResLast, last..last + 1)]
        {
            let load = || Network::load(&self.bundle, component, &self.resources);
            let mut network = timed(&mut self.seconds.load, load)?;
            let mut predict = |latents: &Latents, at: At| network.predict(&inputs(latents, &beside, at));
            timed(&mut self.seconds.denoise, || {
                walk(&mut sampler, steps, None, &mut latents, generator, observer, &mut predict)
            })?;
        }
        Ok(latents)
    }
}

/// The noisy picture, and the small one behind it.
fn inputs(latents: &Latents, beside: &[f32], at: At) -> [NamedTensor; 2] {
    let [_, channels, height, width] = latents.shape();
    let sample = [latents.values(), beside].concat();
    [
        NamedTensor::new("sample", &[1, 2 * channels, height, width], sample),
        NamedTensor::new("timestep", &[1], vec![at.timestep]),
    ]
}
