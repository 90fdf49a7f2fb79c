//! The noise schedule of training, and the timesteps of a run.
//!
//! The forward process mixes a picture with noise in `N` small steps; after step `t` the picture's share of the
//! variance is `alphas_cumprod[t]`, the product of `1 - beta` up to there. Precision follows diffusers, value for
//! value: betas are float32, their product is kept in f64 and each partial product rounded, timesteps are f64
//! rounded half to even.
//!
//! One departure. Under trailing spacing, diffusers counts down with numpy's `arange`, which for some numbers of
//! steps (61, 103, 121, ...) runs one entry too far, to timestep -1. Python then reads `alphas_cumprod[-1]`, the
//! *last* entry: the finished picture is taken for pure noise and destroyed. That entry is left out here.
//!
//! Source: diffusers 0.42.1, `scheduling_ddim.py`; zero terminal SNR: Lin et al. 2023, algorithm 1,
//! arXiv:2305.08891.

use std::f64::consts::FRAC_PI_2;

use super::Amplitudes;
use super::config::{Betas, PredictionType, SchedulerConfig, TimestepSpacing};
use crate::kernels::elementary::sin_cos;

/// The most steps that a run may have: the timesteps of training of every published latent model.
pub const MAX_INFERENCE_STEPS: usize = 1000;

/// The timesteps of a run, from noise to picture.
pub type Timesteps = heapless::Vec<u32, MAX_INFERENCE_STEPS>;

/// Why a noise schedule, or a run over it, was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// The betas leave no usable share of picture at some timestep.
    #[error("the betas make alphas_cumprod[{timestep}] {got}, expected a value between 0 and 1")]
    AlphasCumprod {
        /// The first such timestep.
        timestep: usize,
        /// The value there.
        got: f32,
    },
    /// The number of steps is zero or too large.
    #[error("{got} steps asked for, expected 1 to {max}")]
    Steps {
        /// The number asked for.
        got: usize,
        /// The most that this schedule allows.
        max: usize,
    },
    /// `steps_offset` pushes the first timestep off the end of the schedule.
    #[error(
        "{num_inference_steps} steps with steps_offset {steps_offset} start at timestep {got}, \
         beyond the last one, {last}: ask for fewer steps"
    )]
    OffsetTooLarge {
        /// The number of steps asked for.
        num_inference_steps: usize,
        /// The offset of the configuration.
        steps_offset: u32,
        /// The timestep that does not exist.
        got: usize,
        /// The last timestep that does.
        last: usize,
    },
    /// The model predicts noise, from which nothing follows about a picture that is all noise.
    #[error("prediction type epsilon cannot be sampled at zero terminal SNR (rescale_betas_zero_snr)")]
    EpsilonAtZeroSnr,
    /// More steps than the schedule that the model was distilled on.
    #[error(
        "{got} steps asked for, expected 1 to {max}: the model was distilled on {max} \
         (original_inference_steps), and each of its steps is one of those"
    )]
    OriginalSteps {
        /// The number asked for.
        got: usize,
        /// `original_inference_steps`.
        max: usize,
    },
}

/// A noise schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    alphas_cumprod: Vec<f32>,
    final_alpha_cumprod: f32,
    zero_terminal_snr: bool,
    spacing: TimestepSpacing,
    steps_offset: u32,
}

impl Schedule {
    /// The schedule that a configuration describes.
    ///
    /// # Errors
    /// [`ScheduleError::AlphasCumprod`] if a value is not in `(0, 1)`; the last may be 0.
    pub fn new(config: &SchedulerConfig) -> Result<Self, ScheduleError> {
        let mut betas = betas(config);
        if config.rescale_betas_zero_snr {
            rescale_zero_terminal_snr(&mut betas);
        }
        let alphas_cumprod = cumulative_product(&betas);
        check_alphas_cumprod(&alphas_cumprod)?;
        let final_alpha_cumprod = if config.set_alpha_to_one { 1.0 } else { alphas_cumprod[0] };
        let (spacing, steps_offset) = (config.timestep_spacing, config.steps_offset);
        let zero_terminal_snr = config.rescale_betas_zero_snr;
        Ok(Self { alphas_cumprod, final_alpha_cumprod, zero_terminal_snr, spacing, steps_offset })
    }

    /// The picture's share of the variance after each timestep of training, falling from near 1 to near 0.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The picture's share once the last step is done.
    pub fn final_alpha_cumprod(&self) -> f32 {
        self.final_alpha_cumprod
    }

    /// Latents as training shows them at one of its timesteps: under noise, of as many values and unit variance.
    ///
    /// # Panics
    /// If there is no such timestep.
    pub fn add_noise(&self, latents: &[f32], noise: &[f32], timestep: usize) -> Vec<f32> {
        let amplitudes = Amplitudes::of(self.alphas_cumprod[timestep]);
        latents.iter().zip(noise).map(|(&x, &z)| amplitudes.mix(x, z)).collect()
    }

    /// [`alphas_cumprod`](Self::alphas_cumprod) as a table of its own, with as much of the picture left at the last timestep as f32 can hold beside the noise:
    /// where noise is measured relative to the picture, none at all would be infinitely much.
    ///
    /// Source of the number: diffusers 0.42.1, `scheduling_euler_discrete.py`.
    pub(super) fn finite_alphas_cumprod(&self) -> Vec<f32> {
        const LEAST: f32 = 1.0 / (1 << 24) as f32;
        let mut alphas_cumprod = self.alphas_cumprod.clone();
        if let Some(last) = alphas_cumprod.last_mut().filter(|_| self.zero_terminal_snr) {
            *last = LEAST;
        }
        alphas_cumprod
    }

    /// Checks that every timestep says something about the picture.
    ///
    /// # Errors
    /// [`ScheduleError::EpsilonAtZeroSnr`] if the model predicts noise and the schedule ends without signal.
    pub(super) fn check_prediction(&self, config: &SchedulerConfig) -> Result<(), ScheduleError> {
        let ends_without_signal = self.alphas_cumprod.last() == Some(&0.0);
        match config.prediction_type {
            PredictionType::Epsilon if ends_without_signal => Err(ScheduleError::EpsilonAtZeroSnr),
            _ => Ok(()),
        }
    }

    /// The timesteps of a run of `num_inference_steps`, falling, each below `num_train_timesteps`.
    ///
    /// # Errors
    /// - [`ScheduleError::Steps`] if there are none, or more than in training or than [`MAX_INFERENCE_STEPS`].
    /// - [`ScheduleError::OffsetTooLarge`] if `steps_offset` leads past the end of the schedule.
    pub fn timesteps(&self, num_inference_steps: usize) -> Result<Timesteps, ScheduleError> {
        self.check_steps(num_inference_steps)?;
        let (train, n) = (self.alphas_cumprod.len(), num_inference_steps);
        match self.spacing {
            TimestepSpacing::Leading => self.leading(n, train / n, 0),
            TimestepSpacing::Trailing => Ok(trailing(train, n)),
            TimestepSpacing::Linspace => Ok(linspace_rounded(train, n).rev().collect()),
        }
    }

    /// The same for a sampler that counts what lies between timesteps: of one timestep more than steps, all but the last.
    ///
    /// # Errors
    /// As [`timesteps`](Self::timesteps), and the most steps are one fewer.
    pub(super) fn interval_timesteps(&self, num_inference_steps: usize) -> Result<Timesteps, ScheduleError> {
        let (train, n) = (self.alphas_cumprod.len(), num_inference_steps);
        if self.spacing == TimestepSpacing::Trailing {
            return self.timesteps(n);
        }
        let max = (train - 1).min(MAX_INFERENCE_STEPS);
        if n == 0 || n > max {
            return Err(ScheduleError::Steps { got: n, max });
        }
        match self.spacing {
            TimestepSpacing::Leading => self.leading(n, train / (n + 1), 1),
            _ => Ok(linspace_rounded(train, n + 1).rev().take(n).collect()),
        }
    }

    /// Checks that a run can have so many steps.
    ///
    /// # Errors
    /// [`ScheduleError::Steps`] if there are none, or more than in training or than [`MAX_INFERENCE_STEPS`].
    pub(super) fn check_steps(&self, num_inference_steps: usize) -> Result<(), ScheduleError> {
        let (got, max) = (num_inference_steps, self.alphas_cumprod.len().min(MAX_INFERENCE_STEPS));
        if got == 0 || got > max { Err(ScheduleError::Steps { got, max }) } else { Ok(()) }
    }

    /// Multiples of `stride` from the `first`, and the offset.
    fn leading(
        &self,
        num_inference_steps: usize,
        stride: usize,
        first: usize,
    ) -> Result<Timesteps, ScheduleError> {
        let steps_offset = self.steps_offset;
        let last = self.alphas_cumprod.len() - 1;
        let got = (num_inference_steps - 1 + first) * stride + steps_offset as usize;
        if got > last {
            return Err(ScheduleError::OffsetTooLarge { num_inference_steps, steps_offset, got, last });
        }
        let multiples = (first..first + num_inference_steps).rev();
        Ok(multiples.map(|i| (i * stride) as u32 + steps_offset).collect())
    }
}

/// `round(arange(train, 0, -train / n)) - 1`, without an entry of -1 at the end.
fn trailing(train: usize, n: usize) -> Timesteps {
    let start = train as f64;
    // numpy fills an `arange` from the difference of its first two values, which is not quite the step asked for.
    let delta = (start - start / n as f64) - start;
    (0..n).map(|i| (start + i as f64 * delta).round_ties_even() as u32 - 1).collect()
}

/// `round(linspace(0, train - 1, n))`.
fn linspace_rounded(train: usize, n: usize) -> impl DoubleEndedIterator<Item = u32> {
    let step = (train - 1) as f64 / (n.max(2) - 1) as f64;
    (0..n).map(move |i| (i as f64 * step).round_ties_even() as u32)
}

fn betas(config: &SchedulerConfig) -> Vec<f32> {
    let n = config.num_train_timesteps;
    match &config.betas {
        Betas::Linear { start, end } => linspace(*start as f32, *end as f32, n),
        Betas::ScaledLinear { start, end } => {
            let roots = linspace(start.sqrt() as f32, end.sqrt() as f32, n);
            roots.into_iter().map(|root| root * root).collect()
        }
        Betas::SquaredCosCapV2 => squared_cosine(n),
        Betas::Trained(betas) => betas.clone(),
    }
}

/// `torch.linspace` in float32: counted from the nearer end, or `start` if there is one value.
fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    let at = |i| if i < (n / 2).max(1) { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 };
    (0..n).map(at).collect()
}

/// Betas whose cumulative product follows `cos^2`, at most 0.999.
///
/// Source: Nichol and Dhariwal 2021, eq. 17, arXiv:2102.09672.
pub(super) fn squared_cosine(n: usize) -> Vec<f32> {
    const MAX_BETA: f64 = 0.999;
    let alpha_bar = |i: usize| {
        let time = i as f64 / n as f64;
        let (_, cos) = sin_cos((time + 0.008) / 1.008 * FRAC_PI_2);
        cos * cos
    };
    (0..n).map(|i| (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(MAX_BETA) as f32).collect()
}

/// Shifts and scales the square roots of the cumulative product, so that the last is 0 and the first stays.
fn rescale_zero_terminal_snr(betas: &mut [f32]) {
    let mut roots = cumulative_product(betas);
    roots.iter_mut().for_each(|a| *a = a.sqrt());
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let mut previous = 1.0;
    for (beta, root) in betas.iter_mut().zip(roots) {
        let shifted = (root - last) * scale;
        let alpha_bar = shifted * shifted;
        *beta = 1.0 - alpha_bar / previous;
        previous = alpha_bar;
    }
}

/// `torch.cumprod` of `1 - betas` in float32, which accumulates in f64.
pub(super) fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0f64;
    let next = |beta| {
        product *= f64::from(1.0f32 - beta);
        product as f32
    };
    betas.iter().map(next).collect()
}

fn check_alphas_cumprod(alphas_cumprod: &[f32]) -> Result<(), ScheduleError> {
    let last = alphas_cumprod.len() - 1;
    let usable = |(t, a): (usize, f32)| (a > 0.0 && a < 1.0) || (a == 0.0 && t == last && t > 0);
    match alphas_cumprod.iter().copied().enumerate().find(|&entry| !usable(entry)) {
        Some((timestep, got)) => Err(ScheduleError::AlphasCumprod { timestep, got }),
        None => Ok(()),
    }
}
