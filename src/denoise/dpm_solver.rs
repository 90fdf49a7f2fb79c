//! DPM-Solver++: steps that look at the pictures of earlier ones. Of second order it is known as DPM++ 2M.
//!
//! With `lambda = ln(alpha / sigma)`, `h` the difference of a step's two lambdas, and pictures `m0`, `m1`, ... that this step
//! and those before it saw, one step from `x` is
//!
//! ```text
//! phi = exp(-h) - 1
//! 1   x' = sigma' / sigma x - alpha' phi m0
//! 2   the same, - alpha' phi D / 2  (midpoint)  or  + alpha' (phi / h + 1) D  (heun),   D the slope of the pictures
//! 3   the same as heun with a better slope, - alpha' ((phi + h) / h^2 - 1/2) times their curvature
//! ```
//!
//! The first steps look at fewer pictures, since there are no more, and so may the last ones. In f32, in diffusers' order
//! of operations, but for logarithm and exponential function, which are our own.
//!
//! Source: Lu et al. 2022, algorithm 2 and appendix B, arXiv:2211.01095; diffusers 0.42.1,
//! `scheduling_dpmsolver_multistep.py`.

use super::config::{Betas, SchedulerConfig};
use super::sigmas::Sigmas;
use super::solver::{FEW_STEPS, Level, Seen, SolverOptions};
use super::{Amplitudes, Sampler, SamplerError};
use crate::kernels::elementary::exp;

/// The DPM-Solver++ sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct DpmSolver {
    timesteps: Vec<f32>,
    levels: Vec<Level>,
    options: SolverOptions,
    ends_without_noise: bool,
    /// The first step of the run.
    begin: usize,
    seen: Seen,
}

impl DpmSolver {
    /// A run of `num_inference_steps` over the schedule of `config`, of latents with `len` values.
    ///
    /// # Errors
    /// [`SamplerError::Schedule`] if the betas are unusable or the number of steps does not fit.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
        len: usize,
    ) -> Result<Self, SamplerError> {
        let whole = if config.betas == Betas::SquaredCosCapV2 { f64::trunc } else { f64::round_ties_even };
        let sigmas = Sigmas::of_intervals(config, num_inference_steps, whole)?;
        Ok(Self {
            levels: Level::of_run(&sigmas),
            timesteps: sigmas.timesteps,
            options: config.solver.clone(),
            begin: 0,
            ends_without_noise: !config.sigmas.ends_at_sigma_min,
            seen: Seen::new(config, config.solver.order, 0, len),
        })
    }

    /// How many pictures step `index` looks at.
    fn order(&self, index: usize) -> usize {
        let (steps, options) = (self.timesteps.len(), &self.options);
        let careful = options.lower_order_final && steps <= FEW_STEPS;
        let most = match steps - index {
            1 if options.euler_at_final || careful || self.ends_without_noise => 1,
            2 if careful => 2,
            _ => options.order,
        };
        most.min(options.order).min(index - self.begin + 1)
    }

    fn weights(&self, index: usize) -> Weights {
        let (to, from) = (self.levels[index + 1], self.levels[index]);
        let alpha = to.amplitudes.signal;
        let h = to.lambda - from.lambda;
        let phi = exp(f64::from(-h)) as f32 - 1.0;
        let order = self.order(index);
        let before = |steps: usize| self.levels[index - steps].lambda;
        let mut weights = Weights {
            sample: to.amplitudes.noise / from.amplitudes.noise,
            picture: alpha * phi,
            ..Weights::default()
        };
        if order > 1 {
            weights.r0 = (from.lambda - before(1)) / h;
            weights.slope = if order == 2 && !self.options.other_form {
                -(0.5 * (alpha * phi))
            } else {
                alpha * (phi / h + 1.0)
            };
        }
        if order > 2 {
            weights.r1 = (before(1) - before(2)) / h;
            weights.curvature = alpha * ((phi + h) / (h * h) - 0.5);
        }
        weights
    }
}

impl Sampler for DpmSolver {
    fn steps(&self) -> usize {
        self.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.timesteps[index]
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        self.levels[index].amplitudes
    }

    fn begin_at(&mut self, index: usize) {
        self.begin = index;
    }

    fn adds_noise(&self, _index: usize) -> bool {
        false
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], _noise: &[f32]) {
        self.seen.keep(index, self.levels[index], latents, model_output);
        let (order, weights) = (self.order(index), self.weights(index));
        let picture = |before: usize| self.seen.picture(index - before.min(order - 1));
        let pictures = picture(0).iter().zip(picture(1)).zip(picture(2));
        for (x, ((&m0, &m1), &m2)) in latents.iter_mut().zip(pictures) {
            *x = weights.apply(order, *x, [m0, m1, m2]);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.seen.originals(self.levels[index], latents, model_output)
    }

    fn memory(&self) -> &[f32] {
        self.seen.values()
    }

    fn remember(&mut self, memory: &[f32]) {
        self.seen.restore(memory);
    }
}

/// The factors of one step.
#[derive(Debug, Clone, Copy, Default)]
struct Weights {
    /// Of the sample.
    sample: f32,
    /// Of the picture.
    picture: f32,
    /// Of the slope of the pictures.
    slope: f32,
    /// Of their curvature.
    curvature: f32,
    /// How long the step before this one was, in units of this one.
    r0: f32,
    /// How long the step before that one was.
    r1: f32,
}

impl Weights {
    /// The next sample. Pictures: this step's, and those of the steps before it as far as `order` goes.
    fn apply(self, order: usize, x: f32, [m0, m1, m2]: [f32; 3]) -> f32 {
        let first = self.sample * x - self.picture * m0;
        if order == 1 {
            return first;
        }
        let slope = 1.0 / self.r0 * (m0 - m1);
        if order == 2 {
            return first + self.slope * slope;
        }
        let bend = slope - 1.0 / self.r1 * (m1 - m2);
        let better = slope + self.r0 / (self.r0 + self.r1) * bend;
        first + self.slope * better - self.curvature * (1.0 / (self.r0 + self.r1) * bend)
    }
}
