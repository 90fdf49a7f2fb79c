//! DDIM: a few large steps against the noise, deterministic or not.
//!
//! With `a = alphas_cumprod[t]` and `a'` the same at the previous timestep, one step from `x` is
//!
//! ```text
//! original, noise = what the model output says they are          by prediction type
//! original        = clipped or thresholded, if configured        (noise = recomputed from it, if asked for)
//! sigma           = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')
//! x'              = sqrt(a') original + sqrt(1 - a' - sigma^2) noise + sigma * fresh noise
//! ```
//!
//! All of it in f32, in diffusers' order of operations: without fresh noise the result is diffusers' to the bit.
//!
//! The previous timestep is `t - N / n`, a whole stride below, and so not always the next of the list: under
//! linspace spacing, and under trailing spacing when `n` does not divide `N`, the two differ. diffusers does the
//! same, and models are judged by the pictures that it draws.
//!
//! One departure. At zero terminal SNR with `eta = 1`, `1 - a' - sigma^2` is 0 but for rounding, and diffusers
//! returns NaN where the rounding falls below. Here it counts as 0.
//!
//! Source: Song et al. 2020, eq. 12 and 16, arXiv:2010.02502; diffusers 0.42.1, `scheduling_ddim.py`.

use super::Sampler;
use super::config::{Clip, PredictionType, SchedulerConfig};
use super::schedule::{Schedule, ScheduleError, Timesteps};

/// Why a DDIM run was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DdimError {
    /// The schedule cannot be run as asked.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// `eta` is NaN or out of range.
    #[error("eta is {got}, expected 0 (deterministic) to 1 (as noisy as DDPM)")]
    Eta {
        /// The value given.
        got: f32,
    },
    /// The model predicts noise, from which nothing follows about a picture that is all noise.
    #[error("prediction type epsilon cannot be sampled at zero terminal SNR (rescale_betas_zero_snr)")]
    EpsilonAtZeroSnr,
}

/// What a caller may choose about a DDIM run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DdimOptions {
    /// The share of fresh noise per step, from 0 (none) to 1 (as much as DDPM).
    pub eta: f32,
    /// Whether the predicted noise is recomputed from the clipped original sample.
    pub use_clipped_model_output: bool,
}

/// The DDIM sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Ddim {
    schedule: Schedule,
    timesteps: Timesteps,
    /// `N / n`: how far below a timestep its previous one lies.
    stride: usize,
    prediction_type: PredictionType,
    clip: Clip,
    options: DdimOptions,
}

impl Ddim {
    /// A run of `num_inference_steps` over the schedule of `config`.
    ///
    /// # Errors
    /// - [`DdimError::Eta`] if `eta` is not in `0..=1`.
    /// - [`DdimError::EpsilonAtZeroSnr`] if the model predicts noise and the schedule ends without signal.
    /// - [`DdimError::Schedule`] if the betas are unusable or the number of steps does not fit.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
        options: DdimOptions,
    ) -> Result<Self, DdimError> {
        if !(0.0..=1.0).contains(&options.eta) {
            return Err(DdimError::Eta { got: options.eta });
        }
        let schedule = Schedule::new(config)?;
        if schedule.has_zero_terminal_snr() && config.prediction_type == PredictionType::Epsilon {
            return Err(DdimError::EpsilonAtZeroSnr);
        }
        let timesteps = schedule.timesteps(num_inference_steps)?;
        let stride = config.num_train_timesteps / num_inference_steps;
        let (prediction_type, clip) = (config.prediction_type, config.clip);
        Ok(Self { schedule, timesteps, stride, prediction_type, clip, options })
    }

    fn coefficients(&self, index: usize) -> Coefficients {
        let t = self.timesteps[index] as usize;
        let a = self.schedule.alphas_cumprod()[t];
        let a_prev = match t.checked_sub(self.stride) {
            Some(previous) => self.schedule.alphas_cumprod()[previous],
            None => self.schedule.final_alpha_cumprod(),
        };
        let variance = (1.0 - a_prev) / (1.0 - a) * (1.0 - a / a_prev);
        let sigma = self.options.eta * variance.sqrt();
        Coefficients {
            signal: a.sqrt(),
            noise: (1.0 - a).sqrt(),
            signal_prev: a_prev.sqrt(),
            noise_prev: (1.0 - a_prev - sigma * sigma).max(0.0).sqrt(),
            sigma,
        }
    }

    fn limit(&self, c: Coefficients, latents: &[f32], model_output: &[f32]) -> Limit {
        Limit::new(self.clip, latents.len(), || {
            let predicted = |(&x, &output): (&f32, &f32)| c.predict(self.prediction_type, x, output).0.abs();
            latents.iter().zip(model_output).map(predicted)
        })
    }
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[u32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn adds_noise(&self, _index: usize) -> bool {
        self.options.eta > 0.0
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        assert_eq!(latents.len(), model_output.len(), "latents and model output differ in length");
        let c = self.coefficients(index);
        let predict = |x, output| c.predict(self.prediction_type, x, output);
        let limit = self.limit(c, latents, model_output);
        for (x, &output) in latents.iter_mut().zip(model_output) {
            let (original, mut predicted_noise) = predict(*x, output);
            let original = limit.apply(original);
            if self.options.use_clipped_model_output {
                predicted_noise = c.noise_given(original, *x);
            }
            *x = c.signal_prev * original + c.noise_prev * predicted_noise;
        }
        if self.adds_noise(index) {
            assert_eq!(latents.len(), noise.len(), "latents and noise differ in length");
            latents.iter_mut().zip(noise).for_each(|(x, z)| *x += c.sigma * z);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        let c = self.coefficients(index);
        let limit = self.limit(c, latents, model_output);
        let original =
            |(&x, &output): (&f32, &f32)| limit.apply(c.predict(self.prediction_type, x, output).0);
        latents.iter().zip(model_output).map(original).collect()
    }
}

/// The factors of one step.
#[derive(Debug, Clone, Copy)]
struct Coefficients {
    /// `sqrt(a)`, the picture's amplitude in the sample.
    signal: f32,
    /// `sqrt(1 - a)`, the noise's amplitude in the sample.
    noise: f32,
    /// `sqrt(a')`.
    signal_prev: f32,
    /// `sqrt(1 - a' - sigma^2)`.
    noise_prev: f32,
    /// The amplitude of fresh noise.
    sigma: f32,
}

impl Coefficients {
    /// The original sample and the noise that the model sees in `x`.
    fn predict(self, prediction_type: PredictionType, x: f32, output: f32) -> (f32, f32) {
        match prediction_type {
            PredictionType::Epsilon => ((x - self.noise * output) / self.signal, output),
            PredictionType::Sample => (output, self.noise_given(output, x)),
            PredictionType::VPrediction => {
                (self.signal * x - self.noise * output, self.signal * output + self.noise * x)
            }
        }
    }

    /// The noise in `x`, if this is the original sample in it.
    fn noise_given(self, original: f32, x: f32) -> f32 {
        (x - self.signal * original) / self.noise
    }
}

/// What one step does to the predicted original sample.
#[derive(Debug, Clone, Copy)]
enum Limit {
    None,
    Clamp { range: f32 },
    Threshold { range: f32 },
}

impl Limit {
    /// `magnitudes` yields the absolute values of the `len` predicted values, as often as it is called.
    fn new<I: Iterator<Item = f32>>(clip: Clip, len: usize, magnitudes: impl Fn() -> I) -> Self {
        match clip {
            Clip::Off => Self::None,
            Clip::Fixed { range } => Self::Clamp { range },
            Clip::Dynamic { ratio, max } => {
                Self::Threshold { range: quantile(ratio, len, magnitudes).max(1.0).min(max) }
            }
        }
    }

    fn apply(self, original: f32) -> f32 {
        match self {
            Self::None => original,
            Self::Clamp { range } => original.clamp(-range, range),
            Self::Threshold { range } => original.clamp(-range, range) / range,
        }
    }
}

/// The `q` quantile of `len` magnitudes, interpolated between its two neighbours as `torch.quantile` does.
fn quantile<I: Iterator<Item = f32>>(q: f32, len: usize, magnitudes: impl Fn() -> I) -> f32 {
    let rank = f64::from(q) * len.saturating_sub(1) as f64;
    let below = order_statistic(rank.floor() as usize, &magnitudes);
    let above = order_statistic(rank.ceil() as usize, &magnitudes);
    let weight = (rank - rank.floor()) as f32;
    if weight < 0.5 { below + weight * (above - below) } else { above - (above - below) * (1.0 - weight) }
}

/// The value that would stand at `rank` if the magnitudes were sorted, found without room to sort them.
///
/// The bits of floats that are not negative are ordered as the floats are, so this bisects the 31 bits.
fn order_statistic<I: Iterator<Item = f32>>(rank: usize, magnitudes: &impl Fn() -> I) -> f32 {
    let (mut low, mut high) = (0, f32::INFINITY.to_bits());
    while low < high {
        let middle = low + (high - low) / 2;
        let reached = magnitudes().filter(|value| value.to_bits() <= middle).count() > rank;
        (low, high) = if reached { (low, middle) } else { (middle + 1, high) };
    }
    f32::from_bits(low)
}
