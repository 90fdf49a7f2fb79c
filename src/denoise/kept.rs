//! The part of a given picture that stays, while the rest of it is drawn anew by a network that knows nothing of parts.
//!
//! After every step what stays is put back, under as much noise as there is at that level:
//!
//! ```text
//! x = (1 - mask) (signal picture + noise z) + mask x          z the noise that the run began with
//! ```
//!
//! Source: Lugmayr et al. 2022, eq. 8, arXiv:2201.09865, without its repetitions; diffusers 0.42.1,
//! `pipeline_stable_diffusion_inpaint.py`.

use super::Amplitudes;
use crate::tensor::Latents;

/// What stays of a picture.
#[derive(Debug, Clone)]
pub struct Kept {
    /// For every cell 1 where it is drawn anew, and 0 where it stays.
    pub mask: Vec<f32>,
    /// The picture.
    pub picture: Latents,
    /// The noise that the run began with, of unit variance.
    pub noise: Latents,
}

impl Kept {
    /// Puts what stays back into the latents, under this much noise.
    ///
    /// # Panics
    /// If picture, noise and latents differ in shape.
    pub fn restore(&self, latents: &mut Latents, amplitudes: Amplitudes) {
        assert_eq!(
            [self.picture.shape(), self.noise.shape()],
            [latents.shape(); 2],
            "latents differ in shape"
        );
        let cells = self.mask.iter().cycle();
        let given = self.picture.values().iter().zip(self.noise.values()).zip(cells);
        for (x, ((&picture, &noise), mask)) in latents.values_mut().iter_mut().zip(given) {
            *x = (1.0 - mask) * amplitudes.mix(picture, noise) + mask * *x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_put_back_under_noise() {
        let latents = |values: [f32; 4]| Latents::new(values.to_vec(), 2, 1, 2).unwrap();
        let kept = Kept {
            mask: vec![0.0, 1.0],
            picture: latents([1.0, 2.0, 3.0, 4.0]),
            noise: latents([10.0, 20.0, 30.0, 40.0]),
        };
        let mut drawn = latents([-1.0, -2.0, -3.0, -4.0]);
        kept.restore(&mut drawn, Amplitudes { signal: 1.0, noise: 0.5 });
        assert_eq!(drawn.values(), [6.0, -2.0, 18.0, -4.0]);
        kept.restore(&mut drawn, Amplitudes::PICTURE);
        assert_eq!(drawn.values(), [1.0, -2.0, 3.0, -4.0]);
    }
}
