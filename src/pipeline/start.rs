//! Where a drawing begins: at noise, or at a given picture under noise.
//!
//! The generator is read in diffusers' order, so that a seed means the same picture:
//!
//! ```text
//! draw of the picture's latents   noise   draw of the latents of what a mask leaves of the picture   the sampler's noise
//! ```
//! The third is read for every mask, also where the network has no use for it. Over a mask, a strength of 1 begins at noise
//! alone.
//!
//! Source: diffusers 0.42.1, `pipeline_stable_diffusion_img2img.py`, `pipeline_stable_diffusion_inpaint.py`.

use super::{InitImage, PipelineError, Request};
use crate::bundle::Bundle;
use crate::denoise::noise::TorchGenerator;
use crate::denoise::{Kept, Sampler};
use crate::tensor::Latents;
use crate::vae::{EncodeError, LatentDistribution, VaeEncoder};

/// A given picture, as the encoder sees it.
pub struct Encoded {
    /// The whole of it, if it is needed.
    picture: Option<LatentDistribution>,
    /// Which latent cells are to be drawn anew, if not all are.
    cells: Option<Vec<f32>>,
    /// What the mask leaves, for a network that is shown it.
    rest: Option<LatentDistribution>,
    begins_with_noise: bool,
    first_step: usize,
}

impl Encoded {
    /// Encodes a picture for this many steps; `is_shown` if the network is shown what a mask leaves of it.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn new(
        init: &InitImage,
        encoder: &mut VaeEncoder,
        steps: usize,
        cell_px: usize,
        is_shown: bool,
    ) -> Result<Self, EncodeError> {
        let begins_with_noise = init.mask().is_some() && init.strength() == 1.0;
        let mut encode = |hidden: &dyn Fn(usize) -> bool| encoder.encode(init.picture(), hidden);
        let is_needed = !(is_shown && begins_with_noise);
        let picture = is_needed.then(|| encode(&|_| false)).transpose()?;
        let mask = init.mask();
        let rest =
            mask.filter(|_| is_shown).map(|mask| encode(&|pixel| mask.is_redrawn(pixel))).transpose()?;
        let (cells, first_step) = (mask.map(|mask| mask.cells(cell_px)), init.first_step(steps));
        Ok(Self { picture, cells, rest, begins_with_noise, first_step })
    }
}

/// All that a drawing begins with.
pub struct Start {
    /// The first latents.
    pub latents: Latents,
    /// The step to begin with.
    pub step: usize,
    /// What stays of a given picture, for a network that is not shown it.
    pub kept: Option<Kept>,
    /// What the network is shown behind the latents.
    pub beside: Option<Latents>,
}

impl Start {
    /// The start of the picture whose noise `generator` makes.
    ///
    /// # Errors
    /// [`PipelineError::Latents`] never, in fact: shapes were checked with the request.
    pub fn new(
        request: &Request,
        bundle: &Bundle,
        encoded: Option<&Encoded>,
        sampler: &mut dyn Sampler,
        generator: &mut TorchGenerator,
    ) -> Result<Self, PipelineError> {
        let shape = request.latent_shape(bundle);
        let Some(encoded) = encoded else {
            let mut latents = noise(request, shape, generator)?;
            latents.values_mut().iter_mut().for_each(|x| *x *= sampler.init_noise_sigma());
            return Ok(Self { latents, step: 0, kept: None, beside: None });
        };
        let step = encoded.first_step;
        sampler.begin_at(step);
        let picture = encoded.picture.as_ref().map(|picture| draw(picture, generator));
        let noise = noise(request, shape, generator)?;
        let mut latents = noise.clone();
        match &picture {
            Some(picture) if !encoded.begins_with_noise => {
                let amplitudes = sampler.amplitudes(step);
                let pairs = latents.values_mut().iter_mut().zip(picture.values());
                pairs.for_each(|(x, &picture)| *x = amplitudes.mix(picture, *x));
            }
            _ => latents.values_mut().iter_mut().for_each(|x| *x *= sampler.init_noise_sigma()),
        }
        let (mut kept, mut beside) = (None, None);
        match (&encoded.cells, &encoded.rest, picture) {
            (Some(cells), Some(rest), _) => beside = Some(shown(cells, &draw(rest, generator))?),
            (Some(cells), None, Some(picture)) => {
                let unused = encoded.picture.as_ref().map_or(0, LatentDistribution::noise_len);
                generator.fill_normal(&mut vec![0.0; unused]);
                kept = Some(Kept { mask: cells.clone(), picture, noise });
            }
            _ => {}
        }
        Ok(Self { latents, step, kept, beside })
    }
}

/// The noise that was given, or the generator's.
fn noise(
    request: &Request,
    [_, channels, height_cells, width_cells]: [usize; 4],
    generator: &mut TorchGenerator,
) -> Result<Latents, PipelineError> {
    if let Some(latents) = &request.latents {
        return Ok(latents.clone());
    }
    let mut noise = vec![0.0; channels * height_cells * width_cells];
    generator.fill_normal(&mut noise);
    Ok(Latents::new(noise, channels, height_cells, width_cells)?)
}

fn draw(distribution: &LatentDistribution, generator: &mut TorchGenerator) -> Latents {
    let mut noise = vec![0.0; distribution.noise_len()];
    generator.fill_normal(&mut noise);
    distribution.sample(&noise)
}

/// The mask and the latents of what it leaves, as the network is shown them.
fn shown(cells: &[f32], rest: &Latents) -> Result<Latents, PipelineError> {
    let [_, channels, height_cells, width_cells] = rest.shape();
    let values = [cells, rest.values()].concat();
    Ok(Latents::new(values, channels + 1, height_cells, width_cells)?)
}
