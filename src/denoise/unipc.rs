//! UniPC: a step predicts the next sample, and the step after it first corrects that sample by the picture it saw there.
//!
//! With `lambda = ln(alpha / sigma)`, `h` the difference of a step's two lambdas, the picture `m0` that it saw and earlier
//! ones `m_i` at `r_i h` from there, one step from `x` is
//!
//! ```text
//! x' = sigma' / sigma x - alpha' (e^-h - 1) m0 - alpha' B sum_i rho_i (m_i - m0) / r_i
//! ```
//!
//! with `B = e^-h - 1` (bh2) or `-h` (bh1), and `rho` such that the sum is right for pictures that are polynomials in
//! lambda. When the model has been asked at `x'`, what it saw there is one more picture, with `r = 1`, and the step is
//! taken again with it. The first and the last steps look at fewer pictures. In f32, in diffusers' order of operations,
//! but for logarithm and exponential function, which are our own, and the equations for `rho`, which are solved in f64.
//!
//! One departure. Where a run ends without noise `h` is infinite; bh1 then makes NaN of zero in diffusers, and is zero
//! here.
//!
//! Source: Zhao et al. 2023, section 3 and appendix F, arXiv:2302.04867; diffusers 0.42.1,
//! `scheduling_unipc_multistep.py`.

use super::config::{ConfigError, SchedulerConfig};
use super::sigmas::Sigmas;
use super::solver::{Level, ORDER_MAX, Seen, SolverOptions};
use super::{Amplitudes, Sampler, SamplerError};
use crate::kernels::elementary::expm1;

/// The UniPC sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct UniPc {
    timesteps: Vec<f32>,
    levels: Vec<Level>,
    options: SolverOptions,
    /// The first step of the run.
    begin: usize,
    /// Pictures: of this step and of as many before it as a correction looks at. Beside them the last sample.
    seen: Seen,
}

impl UniPc {
    /// A run of `num_inference_steps` over the schedule of `config`, of latents with `len` values.
    ///
    /// # Errors
    /// - [`SamplerError::Config`] if the last step would look at earlier pictures over an infinite distance.
    /// - [`SamplerError::Schedule`] if the betas are unusable or the number of steps does not fit.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
        len: usize,
    ) -> Result<Self, SamplerError> {
        let options = config.solver.clone();
        if !options.lower_order_final && options.order > 1 && !config.sigmas.ends_at_sigma_min {
            let expected = "true, or final_sigmas_type sigma_min beside it";
            let (key, got) = ("lower_order_final", "false".into());
            return Err(ConfigError::Unsupported { key, got, expected }.into());
        }
        let mut sigmas = Sigmas::of_intervals(config, num_inference_steps, f64::round_ties_even)?;
        if config.sigmas.use_karras_sigmas && config.sigmas.ends_at_sigma_min {
            sigmas.levels[num_inference_steps] = sigmas.levels[num_inference_steps - 1];
        }
        let seen = Seen::new(config, options.order + 1, 1, len);
        Ok(Self { levels: Level::of_run(&sigmas), timesteps: sigmas.timesteps, options, begin: 0, seen })
    }

    /// How many pictures step `index` looks at.
    fn order(&self, index: usize) -> usize {
        let left = self.timesteps.len() - index;
        let most = if self.options.lower_order_final { left } else { ORDER_MAX };
        most.min(self.options.order).min(index - self.begin + 1)
    }

    /// The slot of the sample that the last step started from.
    fn last_sample(&self) -> usize {
        self.options.order + 1
    }

    /// Takes the step before `index` again, with what was seen since.
    fn correct(&self, index: usize, latents: &mut [f32]) {
        let (order, step) = (self.order(index - 1), index - 1);
        let weights = Weights::new(&self.levels, step, order, self.options.other_form);
        let rhos = if order == 1 { [0.5, 0.0, 0.0] } else { weights.solve(order) };
        let last_sample = self.seen.slot(self.last_sample());
        let (new, m0) = (self.seen.picture(index), self.seen.picture(step));
        for (at, x) in latents.iter_mut().enumerate() {
            let sum = self.earlier(&weights, &rhos, step, order, at) + rhos[order - 1] * (new[at] - m0[at]);
            *x = weights.apply(last_sample[at], m0[at], sum);
        }
    }

    fn predict(&self, index: usize, latents: &mut [f32]) {
        let order = self.order(index);
        let weights = Weights::new(&self.levels, index, order, self.options.other_form);
        let rhos = if order == 2 { [0.5, 0.0, 0.0] } else { weights.solve(order - 1) };
        let m0 = self.seen.picture(index);
        for (at, x) in latents.iter_mut().enumerate() {
            *x = weights.apply(*x, m0[at], self.earlier(&weights, &rhos, index, order, at));
        }
    }

    /// The part of the sum that the pictures before `step` have.
    fn earlier(&self, weights: &Weights, rhos: &[f32], step: usize, order: usize, at: usize) -> f32 {
        let m0 = self.seen.picture(step)[at];
        let term =
            |i: usize| rhos[i - 1] * ((self.seen.picture(step - i)[at] - m0) / weights.distances[i - 1]);
        (1..order).map(term).sum()
    }
}

impl Sampler for UniPc {
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
        if index > self.begin && !self.options.disable_corrector.contains(&(index - 1)) {
            self.correct(index, latents);
        }
        let slot = self.last_sample();
        self.seen.slot_mut(slot).copy_from_slice(latents);
        self.predict(index, latents);
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
#[derive(Debug, Clone, Copy)]
struct Weights {
    /// Of the sample.
    sample: f32,
    /// Of the picture.
    picture: f32,
    /// Of the sum over differences of pictures.
    sum: f32,
    /// `r_i`, and 1 for a picture at the end of the step.
    distances: [f32; ORDER_MAX],
    /// The right sides of the equations for `rho`.
    moments: [f32; ORDER_MAX],
}

impl Weights {
    fn new(levels: &[Level], step: usize, order: usize, is_bh1: bool) -> Self {
        let (to, from) = (levels[step + 1], levels[step]);
        let (alpha, h) = (to.amplitudes.signal, to.lambda - from.lambda);
        let phi_1 = expm1(f64::from(-h)) as f32;
        let b = if is_bh1 { -h } else { phi_1 };
        let mut distances = [1.0; ORDER_MAX];
        for i in 1..order {
            distances[i - 1] = (levels[step - i].lambda - from.lambda) / h;
        }
        Self {
            sample: to.amplitudes.noise / from.amplitudes.noise,
            picture: alpha * phi_1,
            sum: if b.is_finite() { alpha * b } else { 0.0 },
            distances,
            moments: moments(-h, phi_1, b),
        }
    }

    fn apply(&self, x: f32, m0: f32, sum: f32) -> f32 {
        self.sample * x - self.picture * m0 - self.sum * sum
    }

    /// `rho` of `n` pictures: `sum_j r_j^i rho_j = moment_i`, by elimination. The distances differ, so the matrix has an
    /// inverse (Vandermonde).
    fn solve(&self, n: usize) -> [f32; ORDER_MAX] {
        let distances = self.distances.map(f64::from);
        let mut rows = [[0.0; ORDER_MAX + 1]; ORDER_MAX];
        let mut powers = [1.0; ORDER_MAX];
        for (row, &moment) in rows.iter_mut().zip(&self.moments).take(n) {
            row[..n].copy_from_slice(&powers[..n]);
            row[n] = f64::from(moment);
            powers.iter_mut().zip(distances).for_each(|(power, r)| *power *= r);
        }
        for pivot in 0..n {
            for row in 0..n {
                let factor = rows[row][pivot] / rows[pivot][pivot];
                if row != pivot {
                    (pivot..=n).for_each(|column| rows[row][column] -= factor * rows[pivot][column]);
                }
            }
        }
        std::array::from_fn(|i| if i < n { (rows[i][n] / rows[i][i]) as f32 } else { 0.0 })
    }
}

/// `i! phi_i(h) / B`, the moments that the differences have to have.
fn moments(h: f32, phi_1: f32, b: f32) -> [f32; ORDER_MAX] {
    let mut phi = phi_1 / h - 1.0;
    let mut factorial = 1.0;
    std::array::from_fn(|i| {
        let moment = phi * factorial / b;
        factorial *= (i + 2) as f32;
        phi = phi / h - 1.0 / factorial;
        moment
    })
}
