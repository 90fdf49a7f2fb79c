//! Levels of noise, for samplers that measure noise relative to the picture.
//!
//! ```text
//! sigma = sqrt((1 - a) / a), a = alphas_cumprod[t]       between two timesteps: on the line between their sigmas
//! ```
//!
//! A run has one sigma more than it has steps; the last is where it ends. Precision follows diffusers: the table is
//! float32, what is read off it f64, and what a run uses float32 again. Karras's levels need a seventh root and a
//! logarithm, which are our own here and the system's there, so that a timestep that is read back from a level may
//! differ in its last digits.
//!
//! One departure. diffusers finds its first step by looking for a timestep in the list, and takes the second of two equal
//! ones; a run here begins with the first.
//!
//! Source: Karras et al. 2022, eq. 5, arXiv:2206.00364; diffusers 0.42.1, `scheduling_euler_discrete.py` and
//! `scheduling_dpmsolver_multistep.py`.

use serde_json::Value;

use super::config::{ConfigError, SchedulerConfig, TimestepSpacing};
use super::keys::Keys;
use super::kind::SamplerKind;
use super::schedule::{Schedule, ScheduleError};
use crate::kernels::elementary::{exp, ln};

/// How levels of noise are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SigmaOptions {
    /// Whether the seventh roots are evenly spaced, instead of the timesteps.
    pub use_karras_sigmas: bool,
    /// The least of Karras's levels, if it is not that of the schedule.
    pub sigma_min: Option<f64>,
    /// The greatest of Karras's levels, if it is not that of the schedule.
    pub sigma_max: Option<f64>,
    /// Whether a run ends at the least level of the schedule, instead of at none.
    pub ends_at_sigma_min: bool,
}

impl SigmaOptions {
    /// Reads the keys that Euler, DPM-Solver++ and UniPC have.
    pub(super) fn read(keys: &Keys, sampler: SamplerKind) -> Result<Self, ConfigError> {
        if !matches!(sampler, SamplerKind::Euler | SamplerKind::DpmSolver | SamplerKind::UniPc) {
            return Ok(Self {
                use_karras_sigmas: false,
                sigma_min: None,
                sigma_max: None,
                ends_at_sigma_min: false,
            });
        }
        keys.unused(&["use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas"])?;
        if sampler == SamplerKind::Euler {
            keys.read_supported("interpolation_type", (), "linear", |v| is(v, "linear"))?;
            keys.read_supported("timestep_type", (), "discrete", |v| is(v, "discrete"))?;
        }
        let ends_at_sigma_min =
            keys.read("final_sigmas_type", false, "zero or sigma_min", |v| match v.as_str()? {
                "zero" => Some(false),
                "sigma_min" => Some(true),
                _ => None,
            })?;
        Ok(Self {
            use_karras_sigmas: keys.read("use_karras_sigmas", false, "true, false or null", |v| {
                if v.is_null() { Some(false) } else { v.as_bool() }
            })?,
            sigma_min: level(keys, "sigma_min")?,
            sigma_max: level(keys, "sigma_max")?,
            ends_at_sigma_min,
        })
    }
}

fn is(value: &Value, word: &str) -> Option<()> {
    (value.as_str()? == word).then_some(())
}

fn level(keys: &Keys, key: &'static str) -> Result<Option<f64>, ConfigError> {
    keys.read(key, None, "null or a number from 1e-6 to 1e6", |v| match v {
        Value::Null => Some(None),
        v => v.as_f64().filter(|sigma| (1e-6..=1e6).contains(sigma)).map(Some),
    })
}

/// The levels of a run, from noise to picture, and the timesteps to run the model at.
#[derive(Debug, Clone)]
pub(super) struct Sigmas {
    /// One more than steps.
    pub(super) levels: Vec<f32>,
    /// One for each step.
    pub(super) timesteps: Vec<f32>,
}

impl Sigmas {
    /// For a step from each of evenly spaced timesteps, which may lie between those of training.
    ///
    /// # Errors
    /// [`ScheduleError`] if the betas are unusable or the number of steps does not fit.
    pub(super) fn of_steps(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, ScheduleError> {
        let schedule = Schedule::new(config)?;
        let table = Table::new(&schedule);
        let whole = schedule.timesteps(num_inference_steps)?;
        let last = (config.num_train_timesteps - 1) as f64;
        let mut timesteps: Vec<f32> = match config.timestep_spacing {
            TimestepSpacing::Linspace => {
                linspace(last, num_inference_steps).rev().map(|t| t as f32).collect()
            }
            TimestepSpacing::Leading | TimestepSpacing::Trailing => whole.iter().map(|&t| t as f32).collect(),
        };
        let mut levels: Vec<f64> = timesteps.iter().map(|&t| table.at(t)).collect();
        if config.sigmas.use_karras_sigmas {
            levels = karras(&config.sigmas, levels[levels.len() - 1], levels[0], num_inference_steps);
            timesteps = levels.iter().map(|&sigma| table.timestep_of(sigma) as f32).collect();
        }
        Ok(Self::new(config, &table, &levels, timesteps))
    }

    /// For steps between evenly spaced timesteps of training, of which there is one more than steps.
    ///
    /// `whole` makes a timestep of training of one between them, for Karras's levels.
    ///
    /// # Errors
    /// [`ScheduleError`] if the betas are unusable or the number of steps does not fit.
    pub(super) fn of_intervals(
        config: &SchedulerConfig,
        num_inference_steps: usize,
        whole: fn(f64) -> f64,
    ) -> Result<Self, ScheduleError> {
        let schedule = Schedule::new(config)?;
        let table = Table::new(&schedule);
        let (levels, timesteps): (Vec<f64>, Vec<f32>) = if config.sigmas.use_karras_sigmas {
            schedule.check_steps(num_inference_steps)?;
            let levels = karras(&config.sigmas, table.least(), table.greatest(), num_inference_steps);
            let timesteps = levels.iter().map(|&sigma| whole(table.timestep_of(sigma)) as f32).collect();
            (levels, timesteps)
        } else {
            let timesteps = schedule.interval_timesteps(num_inference_steps)?;
            timesteps.iter().map(|&t| (table.at(t as f32), t as f32)).unzip()
        };
        Ok(Self::new(config, &table, &levels, timesteps))
    }

    fn new(config: &SchedulerConfig, table: &Table, levels: &[f64], timesteps: Vec<f32>) -> Self {
        let end = if config.sigmas.ends_at_sigma_min { table.sigmas[0] } else { 0.0 };
        Self { levels: levels.iter().map(|&sigma| sigma as f32).chain([end]).collect(), timesteps }
    }

    /// The greatest level.
    pub(super) fn greatest(&self) -> f32 {
        self.levels.iter().copied().fold(0.0, f32::max)
    }
}

/// The levels of the timesteps of training, rising.
struct Table {
    sigmas: Vec<f32>,
    logarithms: Vec<f32>,
}

impl Table {
    fn new(schedule: &Schedule) -> Self {
        let sigma = |a: f32| ((1.0 - a) / a).sqrt();
        let sigmas: Vec<f32> = schedule.finite_alphas_cumprod().into_iter().map(sigma).collect();
        let logarithms = sigmas.iter().map(|&sigma| ln(f64::from(sigma)) as f32).collect();
        Self { sigmas, logarithms }
    }

    fn least(&self) -> f64 {
        f64::from(self.sigmas[0])
    }

    fn greatest(&self) -> f64 {
        f64::from(self.sigmas[self.sigmas.len() - 1])
    }

    /// The level at a timestep of training, or on the line between two of them; `numpy.interp`.
    fn at(&self, timestep: f32) -> f64 {
        let below = timestep as usize;
        let value = |at: usize| f64::from(self.sigmas[at]);
        if below + 1 >= self.sigmas.len() {
            return self.greatest();
        }
        (value(below + 1) - value(below)) * (f64::from(timestep) - below as f64) + value(below)
    }

    /// The timestep at which the level is `sigma`, on the line between the logarithms of two levels of training.
    fn timestep_of(&self, sigma: f64) -> f64 {
        let logarithm = ln(sigma.max(1e-10));
        let reached = self.logarithms.partition_point(|&known| logarithm >= f64::from(known));
        let low = reached.saturating_sub(1).min(self.logarithms.len().saturating_sub(2));
        let Some(&above) = self.logarithms.get(low + 1) else { return 0.0 };
        let below = self.logarithms[low];
        let weight = ((f64::from(below) - logarithm) / f64::from(below - above)).clamp(0.0, 1.0);
        (1.0 - weight) * low as f64 + weight * (low + 1) as f64
    }
}

/// Levels whose seventh roots are evenly spaced, falling from `greatest` to `least` unless the options name others.
fn karras(options: &SigmaOptions, least: f64, greatest: f64, n: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let root = |sigma: f64| exp(ln(sigma) / RHO);
    let (from, to) = (root(options.sigma_max.unwrap_or(greatest)), root(options.sigma_min.unwrap_or(least)));
    let level = |ramp: f64| {
        let root = from + ramp * (to - from);
        let (square, cube) = (root * root, root * root * root);
        square * square * cube
    };
    linspace(1.0, n).map(level).collect()
}

/// `numpy.linspace(0, last, n)`.
fn linspace(last: f64, n: usize) -> impl DoubleEndedIterator<Item = f64> {
    let step = last / (n.max(2) - 1) as f64;
    (0..n).map(move |i| if i > 0 && i + 1 == n { last } else { i as f64 * step })
}
