//! Noise over the embedding of a picture, of which the network is told how much there is: a little of it lets a picture be less
//! like the one that was embedded.
//!
//! Source: diffusers 0.42.1, `noise_image_embeddings` of `pipeline_stable_unclip.py`.

use serde_json::Value;

use super::SamplerError;
use super::config::{ConfigError, SchedulerConfig};
use super::kind::SamplerKind;
use super::prediction::Amplitudes;
use super::schedule::Schedule;
use crate::kernels::elementary::{exp, ln, sin_cos};

/// The period of the slowest of the waves that stand for a level, over 2 pi.
const PERIOD_MAX: f64 = 10_000.0;

/// How much noise lies over an embedding.
#[derive(Debug, Clone, Copy)]
pub struct NoiseLevel {
    timestep: usize,
    amplitudes: Amplitudes,
}

impl NoiseLevel {
    /// The noise after `timestep` of the schedule that a configuration describes; `None` if there is no such timestep.
    ///
    /// # Errors
    /// [`SamplerError::Config`], [`SamplerError::Schedule`]: the configuration.
    pub fn new(scheduler: &Value, timestep: usize) -> Result<Option<Self>, SamplerError> {
        let object = scheduler.as_object().ok_or(ConfigError::NotAnObject)?;
        let schedule = Schedule::new(&SchedulerConfig::from_object(object, SamplerKind::Ddpm)?)?;
        let alpha = schedule.alphas_cumprod().get(timestep);
        Ok(alpha.map(|&alpha| Self { timestep, amplitudes: Amplitudes::of(alpha) }))
    }

    /// Puts `noise` over an embedding of unit variance, in place.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn put_over(self, embedding: &mut [f32], noise: &[f32]) {
        assert_eq!(embedding.len(), noise.len(), "embedding and noise differ in length");
        embedding.iter_mut().zip(noise).for_each(|(x, &z)| *x = self.amplitudes.mix(*x, z));
    }

    /// What the network is told: `width / 2` cosines and as many sines.
    pub fn waves(self, width: usize) -> Vec<f32> {
        let half = width / 2;
        let fall = -(ln(PERIOD_MAX) as f32);
        let wave = |i: usize| {
            let frequency = exp(f64::from(fall * i as f32 / half as f32)) as f32;
            sin_cos(f64::from(self.timestep as f32 * frequency))
        };
        let mut waves = vec![0.0; width];
        for i in 0..half {
            let (sine, cosine) = wave(i);
            (waves[i], waves[half + i]) = (cosine as f32, sine as f32);
        }
        waves
    }
}
