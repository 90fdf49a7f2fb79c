//! What LCM and TCD have in common: a model that was distilled on few timesteps, and runs at some of those.
//!
//! Source: Luo et al. 2023, section 4.3, arXiv:2310.04378; diffusers 0.42.1, `scheduling_lcm.py`.

use super::config::{ConfigError, SchedulerConfig};
use super::keys::Keys;
use super::kind::SamplerKind;
use super::schedule::{MAX_INFERENCE_STEPS, ScheduleError, Timesteps};

/// How the model was distilled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// The evenly spaced timesteps of distillation.
    pub original_inference_steps: usize,
    /// How quickly LCM's weight moves from the sample to the prediction as timesteps rise.
    pub timestep_scaling: f32,
}

impl Distillation {
    /// Reads the keys that LCM and TCD have.
    pub(super) fn read(
        keys: &Keys,
        sampler: SamplerKind,
        num_train_timesteps: usize,
    ) -> Result<Self, ConfigError> {
        let default = Self { original_inference_steps: 50, timestep_scaling: 10.0 };
        if !matches!(sampler, SamplerKind::Lcm | SamplerKind::Tcd) {
            return Ok(default);
        }
        let (key, expected) = ("original_inference_steps", "an integer from 1 to num_train_timesteps");
        let original_inference_steps = keys.read(key, default.original_inference_steps, expected, |v| {
            usize::try_from(v.as_u64()?).ok().filter(|n| (1..=num_train_timesteps).contains(n))
        })?;
        if original_inference_steps > num_train_timesteps {
            let got = format!("{original_inference_steps} by default");
            return Err(ConfigError::Unsupported { key, got, expected });
        }
        let timestep_scaling = keys.positive("timestep_scaling", default.timestep_scaling)?;
        Ok(Self { original_inference_steps, timestep_scaling })
    }
}

/// The timesteps of a run: from the highest of distillation on, evenly picked.
///
/// # Errors
/// [`ScheduleError::OriginalSteps`] if there are none, or more than in distillation.
pub(super) fn timesteps(
    config: &SchedulerConfig,
    num_inference_steps: usize,
) -> Result<Timesteps, ScheduleError> {
    let (train, n) = (config.num_train_timesteps, num_inference_steps);
    let original = config.distillation.original_inference_steps;
    let max = original.min(MAX_INFERENCE_STEPS);
    if n == 0 || n > max {
        return Err(ScheduleError::OriginalSteps { got: n, max });
    }
    let (stride, spacing) = (train / original, original as f64 / n as f64);
    let at = |i: usize| (original - (i as f64 * spacing).floor() as usize) * stride - 1;
    Ok((0..n).map(|i| at(i) as u32).collect())
}
