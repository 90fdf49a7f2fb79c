//! Noise to pictures, without words or latents: what plain diffusion models do.
//!
//! ```text
//! UNet   per picture: noise -> pixels, -1 to 1 -> bytes       the class, if there are classes, is told at every step
//! ```
//! Where a class has a number that stands for none, guidance leads from there to the class.

use std::sync::Arc;

use super::classes::{self, ClassError};
use super::progress::Watcher;
use super::start::Start;
use super::text_to_image::timed;
use super::{Image, PipelineError, Progress, Request, RequestError, Seconds, footprints};
use crate::bundle::{Bundle, Component};
use crate::denoise::noise::TorchGenerator;
use crate::denoise::pixel_unet::PixelUnet;
use crate::denoise::run::{At, walk};
use crate::engine::Resources;
use crate::tensor::{Latents, Rgb8, ShapeError};

/// Red, green and blue.
const CHANNELS: usize = 3;

/// A model of pixels.
pub struct Pixels {
    bundle: Arc<Bundle>,
    resources: Resources,
    seconds: Seconds,
}

/// The numbers of the class to draw and of none, as far as the model has them.
struct Labels {
    label: Option<usize>,
    null: Option<usize>,
}

impl Pixels {
    /// Over the model in `bundle`. Nothing is loaded yet.
    pub fn new(bundle: Arc<Bundle>, resources: Resources) -> Self {
        Self { bundle, resources, seconds: Seconds::default() }
    }

    /// Where the time of all runs so far went.
    pub fn seconds(&self) -> Seconds {
        self.seconds
    }

    /// Checks all of a request that can be checked without loading anything. Of its prompt the class is taken that it names.
    ///
    /// # Errors
    /// [`PipelineError`]: the request's fault, or the model's configuration.
    pub fn check(&self, request: &Request) -> Result<(), PipelineError> {
        let config = self.bundle.component(Component::Unet).map(|unet| &unet.config);
        let channels = ["in_channels", "out_channels"].map(|key| config.and_then(|c| c[key].as_u64()));
        if channels != [Some(CHANNELS as u64); 2] {
            return Err(RequestError::PixelChannels { got: channels.map(Option::unwrap_or_default) }.into());
        }
        request.check(&self.bundle)?;
        self.labels(request)?;
        Ok(request.build_sampler(&self.bundle).map(drop)?)
    }

    fn labels(&self, request: &Request) -> Result<Labels, RequestError> {
        let label = classes::label(&self.bundle, request.prompt.as_str())?;
        let null = classes::null(&self.bundle);
        if request.guidance_scale.is_active() && null.is_none() {
            return Err(ClassError::NoNull.into());
        }
        Ok(Labels { label, null })
    }

    /// Makes the pictures of a request, in the order of their seeds. Their latents are the pixels before they are rounded.
    ///
    /// # Errors
    /// [`PipelineError`]; no picture is made then.
    pub fn run(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Image>, PipelineError> {
        self.check(request)?;
        if self.resources.memory_bytes.is_some() {
            footprints(&self.bundle, &[Component::Unet], request.size, &self.resources)?;
        }
        let labels = self.labels(request)?;
        let mut unet = timed(&mut self.seconds.load, || PixelUnet::load(&self.bundle, &self.resources))?;
        let mut images = Vec::with_capacity(request.count);
        for (at, seed) in request.seeds().enumerate() {
            let (before, total) = (at * request.steps, request.count * request.steps);
            let mut watcher = Watcher { progress, first: 0, before, total };
            let latents = self.denoise(request, seed, &labels, &mut unet, &mut watcher)?;
            images.push(self.image((at, seed), latents)?);
        }
        Ok(images)
    }

    fn denoise(
        &mut self,
        request: &Request,
        seed: u64,
        &Labels { label, null }: &Labels,
        unet: &mut PixelUnet,
        watcher: &mut Watcher,
    ) -> Result<Latents, PipelineError> {
        let mut sampler = request.build_sampler(&self.bundle)?;
        let mut generator = TorchGenerator::new(seed);
        let mut latents = Start::new(request, &self.bundle, None, &mut *sampler, &mut generator)?.latents;
        let steps = sampler.steps();
        let mut predict = |pixels: &Latents, at: At| match (label, null) {
            (Some(label), Some(null)) if label != null => {
                let scale = request.guidance_interval.scale(request.guidance_scale, at.index, steps);
                match scale.is_active() {
                    true => unet.predict_guided(pixels, at, [label, null], scale),
                    false => unet.predict(pixels, at, Some(label)),
                }
            }
            _ => unet.predict(pixels, at, label),
        };
        timed(&mut self.seconds.denoise, || {
            walk(&mut *sampler, 0..steps, None, &mut latents, &mut generator, watcher, &mut predict)
        })?;
        Ok(latents)
    }

    fn image(&self, (at, seed): (usize, u64), latents: Latents) -> Result<Image, PipelineError> {
        let pixels = rounded(&latents)?;
        let arithmetic = self.resources.arithmetic;
        Ok(Image { at, seed, latents, pixels, arithmetic, division: None })
    }
}

/// Pixels from -1 to 1 as bytes.
///
/// # Errors
/// [`ShapeError`] if there are no three channels.
pub fn rounded(pixels: &Latents) -> Result<Rgb8, ShapeError> {
    Rgb8::from_planes(pixels.values(), pixels.width_cells(), pixels.height_cells())
}
