//! unCLIP's sampler: DDPM over timesteps that include the first and the last, whose noise a network may predict too.
//!
//! With `a = alphas_cumprod[t]` and `a'` the same at the next timestep of the list, or 1 after the last, one step
//! from `x` is
//!
//! ```text
//! original = what the model output says it is                     clipped, if configured
//! beta     = 1 - a / a'                 where the next timestep is t - 1, beta of t as it is
//! x'       = sqrt(a') beta / (1 - a) original + sqrt(1 - beta) (1 - a') / (1 - a) x + deviation fresh noise
//! deviation = sqrt(variance), variance = (1 - a') / (1 - a) beta                     "fixed_small_log"
//!           = exp((share log beta + (1 - share) log variance) / 2)                   "learned_range"
//! ```
//!
//! A learned share lies behind the prediction in the model's output, as `-1` to `1`. There is no noise at timestep 0. All of
//! it in f32, in diffusers' order of operations. One departure: a run of one step, by which diffusers divides by zero, is at
//! the last timestep.
//!
//! Source: Ramesh et al. 2022, arXiv:2204.06125; Nichol and Dhariwal 2021, eq. 15, arXiv:2102.09672; diffusers 0.42.1,
//! `scheduling_unclip.py`, with `prev_timestep` given as `UnCLIPPipeline` does.

use serde_json::Value;

use super::config::{Clip, ConfigError, MAX_TRAIN_TIMESTEPS, PredictionType};
use super::keys::Keys;
use super::prediction::{Amplitudes, Reading};
use super::schedule::{MAX_INFERENCE_STEPS, ScheduleError, Timesteps, cumulative_product, squared_cosine};
use super::{Sampler, SamplerError};
use crate::kernels::elementary::{exp, ln};

/// The least variance of a step; it keeps its logarithm finite.
const VARIANCE_MIN: f32 = 1e-20;

/// unCLIP's sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Unclip {
    betas: Vec<f32>,
    alphas_cumprod: Vec<f32>,
    timesteps: Timesteps,
    reading: Reading,
    /// Whether the model predicts the variance too.
    learned_variance: bool,
}

/// The numbers of one step.
struct Coefficients {
    amplitudes: Amplitudes,
    original: f32,
    sample: f32,
    beta: f32,
    variance: f32,
}

impl Unclip {
    /// A run of `num_inference_steps` over the schedule that a `scheduler_config.json` of the class `UnCLIPScheduler` describes.
    ///
    /// # Errors
    /// - [`SamplerError::Config`] if it is no object, or a key has a value that the class does not know.
    /// - [`SamplerError::Schedule`] if there are no steps, or more than in training.
    pub fn new(config: &Value, num_inference_steps: usize) -> Result<Self, SamplerError> {
        let keys = Keys(config.as_object().ok_or(ConfigError::NotAnObject)?);
        let train = keys.read("num_train_timesteps", 1000, "a whole number from 1 to 4096", |v| {
            usize::try_from(v.as_u64()?).ok().filter(|n| (1..=MAX_TRAIN_TIMESTEPS).contains(n))
        })?;
        keys.read("beta_schedule", (), "squaredcos_cap_v2", |v| (v == "squaredcos_cap_v2").then_some(()))?;
        let expected = "one of fixed_small_log, learned_range";
        let learned_variance = keys.read("variance_type", false, expected, |v| match v.as_str()? {
            "fixed_small_log" => Some(false),
            "learned_range" => Some(true),
            _ => None,
        })?;
        let expected = "one of epsilon, sample";
        let prediction_type =
            keys.read("prediction_type", PredictionType::Epsilon, expected, |v| match v.as_str()? {
                "epsilon" => Some(PredictionType::Epsilon),
                "sample" => Some(PredictionType::Sample),
                _ => None,
            })?;
        let range = keys.positive("clip_sample_range", 1.0)?;
        let clip = if keys.flag("clip_sample", true)? { Clip::Fixed { range } } else { Clip::Off };
        let betas = squared_cosine(train);
        let alphas_cumprod = cumulative_product(&betas);
        let timesteps = timesteps(train, num_inference_steps)?;
        let reading = Reading { prediction_type, clip };
        Ok(Self { betas, alphas_cumprod, timesteps, reading, learned_variance })
    }

    fn alpha_cumprod(&self, index: usize) -> f32 {
        self.timesteps.get(index).map_or(1.0, |&t| self.alphas_cumprod[t as usize])
    }

    fn coefficients(&self, index: usize) -> Coefficients {
        let (a, a_prev) = (self.alpha_cumprod(index), self.alpha_cumprod(index + 1));
        let t = self.timesteps[index];
        let previous = self.timesteps.get(index + 1).map_or(0, |previous| previous + 1);
        let beta = if previous == t { self.betas[t as usize] } else { 1.0 - a / a_prev };
        let (noise, noise_prev) = (1.0 - a, 1.0 - a_prev);
        Coefficients {
            amplitudes: Amplitudes::of(a),
            original: a_prev.sqrt() * beta / noise,
            sample: (1.0 - beta).sqrt() * noise_prev / noise,
            beta,
            variance: noise_prev / noise * beta,
        }
    }
}

/// `round(i (train - 1) / (n - 1))`, falling; the last for one step.
fn timesteps(train: usize, n: usize) -> Result<Timesteps, ScheduleError> {
    let max = train.min(MAX_INFERENCE_STEPS);
    if n == 0 || n > max {
        return Err(ScheduleError::Steps { got: n, max });
    }
    let last = train - 1;
    let ratio = last as f64 / (n.max(2) - 1) as f64;
    let first = if n == 1 { last } else { 0 };
    Ok((0..n).rev().map(|i| (i as f64 * ratio).round_ties_even() as u32 + first as u32).collect())
}

impl Sampler for Unclip {
    fn steps(&self) -> usize {
        self.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.timesteps[index] as f32
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        Amplitudes::of(self.alpha_cumprod(index))
    }

    fn adds_noise(&self, index: usize) -> bool {
        self.timesteps[index] > 0
    }

    /// With a learned variance `model_output` is twice as long as `latents`: the prediction, and behind it the shares.
    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        let Coefficients { amplitudes, original, sample, beta, variance } = self.coefficients(index);
        let (model_output, shares) = model_output.split_at(latents.len());
        let seen = self.reading.of(amplitudes, latents, model_output);
        for (x, &output) in latents.iter_mut().zip(model_output) {
            *x = original * seen.original(*x, output) + sample * *x;
        }
        if !self.adds_noise(index) {
            return;
        }
        assert_eq!(latents.len(), noise.len(), "latents and noise differ in length");
        if self.learned_variance && !shares.is_empty() {
            assert_eq!(latents.len(), shares.len(), "latents and learned variances differ in length");
            let [least, most] = [variance, beta].map(log);
            for ((x, z), share) in latents.iter_mut().zip(noise).zip(shares) {
                let share = (share + 1.0) / 2.0;
                let log_variance = share * most + (1.0 - share) * least;
                *x += root(log_variance) * z;
            }
        } else {
            let deviation = root(log(variance));
            latents.iter_mut().zip(noise).for_each(|(x, z)| *x += deviation * z);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        let model_output = &model_output[..latents.len()];
        self.reading.of(self.amplitudes(index), latents, model_output).originals(latents, model_output)
    }
}

fn log(variance: f32) -> f32 {
    ln(f64::from(variance.max(VARIANCE_MIN))) as f32
}

/// The root of what this is the logarithm of.
fn root(log_variance: f32) -> f32 {
    exp(f64::from(0.5 * log_variance)) as f32
}
