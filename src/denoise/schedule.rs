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

use super::config::{Betas, SchedulerConfig, TimestepSpacing};
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
}

/// A noise schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    alphas_cumprod: Vec<f32>,
    final_alpha_cumprod: f32,
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
        Ok(Self { alphas_cumprod, final_alpha_cumprod, spacing, steps_offset })
    }

    /// The picture's share of the variance after each timestep of training, falling from near 1 to near 0.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The picture's share once the last step is done.
    pub fn final_alpha_cumprod(&self) -> f32 {
        self.final_alpha_cumprod
    }

    /// Whether nothing of the picture is left at the last timestep.
    pub fn has_zero_terminal_snr(&self) -> bool {
        self.alphas_cumprod.last() == Some(&0.0)
    }

    /// The timesteps of a run of `num_inference_steps`, falling, each below `num_train_timesteps`.
    ///
    /// # Errors
    /// - [`ScheduleError::Steps`] if there are none, or more than in training or than [`MAX_INFERENCE_STEPS`].
    /// - [`ScheduleError::OffsetTooLarge`] if `steps_offset` leads past the end of the schedule.
    pub fn timesteps(&self, num_inference_steps: usize) -> Result<Timesteps, ScheduleError> {
        let (train, n) = (self.alphas_cumprod.len(), num_inference_steps);
        let max = train.min(MAX_INFERENCE_STEPS);
        if n == 0 || n > max {
            return Err(ScheduleError::Steps { got: n, max });
        }
        match self.spacing {
            TimestepSpacing::Leading => self.leading(n),
            TimestepSpacing::Trailing => Ok(trailing(train, n)),
            TimestepSpacing::Linspace => Ok(linspace_timesteps(train, n)),
        }
    }

    fn leading(&self, num_inference_steps: usize) -> Result<Timesteps, ScheduleError> {
        let train = self.alphas_cumprod.len();
        let (stride, steps_offset) = (train / num_inference_steps, self.steps_offset);
        let (got, last) = ((num_inference_steps - 1) * stride + steps_offset as usize, train - 1);
        if got > last {
            return Err(ScheduleError::OffsetTooLarge { num_inference_steps, steps_offset, got, last });
        }
        Ok((0..num_inference_steps).rev().map(|i| (i * stride) as u32 + steps_offset).collect())
    }
}

/// `round(arange(train, 0, -train / n)) - 1`, without an entry of -1 at the end.
fn trailing(train: usize, n: usize) -> Timesteps {
    let start = train as f64;
    // numpy fills an `arange` from the difference of its first two values, which is not quite the step asked for.
    let delta = (start - start / n as f64) - start;
    (0..n).map(|i| (start + i as f64 * delta).round_ties_even() as u32 - 1).collect()
}

/// `round(linspace(0, train - 1, n))`, from the last.
fn linspace_timesteps(train: usize, n: usize) -> Timesteps {
    let last = (train - 1) as f64;
    let step = last / (n.max(2) - 1) as f64;
    (0..n).rev().map(|i| (i as f64 * step).round_ties_even() as u32).collect()
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
fn squared_cosine(n: usize) -> Vec<f32> {
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
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
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
