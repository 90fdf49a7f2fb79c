//! What DPM-Solver++ and UniPC have in common: options, a run in half-logarithms of the signal-to-noise ratio, and the
//! pictures that earlier steps saw.
//!
//! Source: Lu et al. 2022, section 2, arXiv:2211.01095.

use serde_json::Value;

use super::config::{ConfigError, SchedulerConfig};
use super::keys::Keys;
use super::kind::SamplerKind;
use super::prediction::{Amplitudes, Reading};
use super::sigmas::Sigmas;
use crate::kernels::elementary::ln;

/// The most pictures that a step looks at.
pub(super) const ORDER_MAX: usize = 3;
/// The most steps of a run whose end is taken more carefully.
pub(super) const FEW_STEPS: usize = 14;

/// How a sampler uses what it remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct SolverOptions {
    /// How many pictures a step looks at, 1 to 3.
    pub order: usize,
    /// Which of a sampler's two forms is taken: heun instead of midpoint, bh1 instead of bh2.
    pub other_form: bool,
    /// Whether the last steps look at fewer pictures.
    pub lower_order_final: bool,
    /// Whether the last step looks at one picture, in any case.
    pub euler_at_final: bool,
    /// The steps after which UniPC does not correct, by index.
    pub disable_corrector: Vec<usize>,
}

impl SolverOptions {
    /// Reads the keys that DPM-Solver++ and UniPC have.
    pub(super) fn read(keys: &Keys, sampler: SamplerKind) -> Result<Self, ConfigError> {
        let default = Self {
            order: 2,
            other_form: false,
            lower_order_final: true,
            euler_at_final: false,
            disable_corrector: Vec::new(),
        };
        // A word of the other sampler's stands for this one's usual form.
        let (known, other) = match sampler {
            SamplerKind::DpmSolver => (["midpoint", "logrho", "bh1", "bh2"], "heun"),
            SamplerKind::UniPc => (["bh2", "midpoint", "heun", "logrho"], "bh1"),
            _ => return Ok(default),
        };
        match sampler {
            SamplerKind::DpmSolver => refuse_other_dpm_solvers(keys)?,
            _ => refuse_other_unipc(keys)?,
        }
        let expected = "one of midpoint, heun, logrho, bh1, bh2";
        let other_form = keys.read("solver_type", false, expected, |v| match v.as_str()? {
            word if word == other => Some(true),
            word => known.contains(&word).then_some(false),
        })?;
        Ok(Self {
            order: keys.read("solver_order", default.order, "an integer from 1 to 3", |v| {
                usize::try_from(v.as_u64()?).ok().filter(|order| (1..=ORDER_MAX).contains(order))
            })?,
            other_form,
            lower_order_final: keys.flag("lower_order_final", true)?,
            euler_at_final: sampler == SamplerKind::DpmSolver && keys.flag("euler_at_final", false)?,
            disable_corrector: keys.read("disable_corrector", Vec::new(), "a list of step numbers", |v| {
                v.as_array()?.iter().map(|step| usize::try_from(step.as_u64()?).ok()).collect()
            })?,
        })
    }
}

fn refuse_other_dpm_solvers(keys: &Keys) -> Result<(), ConfigError> {
    // diffusers reads deis as dpmsolver++.
    keys.read_supported("algorithm_type", (), "dpmsolver++", |v| {
        matches!(v.as_str()?, "dpmsolver++" | "deis").then_some(())
    })?;
    keys.read_supported("lambda_min_clipped", (), "null, for no clipping", |v| v.is_null().then_some(()))?;
    keys.read_supported("variance_type", (), "null or a fixed one", |v| match v {
        Value::Null => Some(()),
        v => v.as_str()?.starts_with("fixed").then_some(()),
    })
}

fn refuse_other_unipc(keys: &Keys) -> Result<(), ConfigError> {
    keys.read_supported("predict_x0", (), "true", |v| (v == &Value::Bool(true)).then_some(()))?;
    keys.unused(&["solver_p", "shift_terminal", "use_dynamic_shifting"])
}

/// A level of noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// Of picture and noise, in a sample of unit variance.
    pub(super) amplitudes: Amplitudes,
    /// The logarithm of the ratio of the two; infinite where there is no noise.
    pub(super) lambda: f32,
}

impl Level {
    fn new(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        let noise = sigma * signal;
        let logarithm = |x: f32| if x > 0.0 { ln(f64::from(x)) as f32 } else { f32::NEG_INFINITY };
        Self { amplitudes: Amplitudes { signal, noise }, lambda: logarithm(signal) - logarithm(noise) }
    }

    /// The levels of a run; one more than steps.
    pub(super) fn of_run(sigmas: &Sigmas) -> Vec<Self> {
        sigmas.levels.iter().map(|&sigma| Self::new(sigma)).collect()
    }
}

/// The pictures that the last steps saw, in slots of one length that are used in turn.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    reading: Reading,
    values: Vec<f32>,
    len: usize,
    turns: usize,
}

impl Seen {
    /// Room for `turns` pictures of `len` values, and for `more` slots beside them.
    pub(super) fn new(config: &SchedulerConfig, turns: usize, more: usize, len: usize) -> Self {
        Self { reading: Reading::new(config), values: vec![0.0; (turns + more) * len], len, turns }
    }

    /// The picture of a step, one of the last `turns`.
    pub(super) fn picture(&self, index: usize) -> &[f32] {
        self.slot(index % self.turns)
    }

    /// A slot: a picture's, or from `turns` on one beside them.
    pub(super) fn slot(&self, slot: usize) -> &[f32] {
        &self.values[slot * self.len..][..self.len]
    }

    /// The same, to be written.
    pub(super) fn slot_mut(&mut self, slot: usize) -> &mut [f32] {
        &mut self.values[slot * self.len..][..self.len]
    }

    /// Keeps the picture that the model sees in step `index`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(super) fn keep(&mut self, index: usize, level: Level, latents: &[f32], model_output: &[f32]) {
        assert_eq!(latents.len(), self.len, "the latents are not as long as was said");
        let seen = self.reading.of(level.amplitudes, latents, model_output);
        let slot = self.slot_mut(index % self.turns);
        for (kept, (&x, &output)) in slot.iter_mut().zip(latents.iter().zip(model_output)) {
            *kept = seen.original(x, output);
        }
    }

    /// The picture that the model sees in step `index`.
    pub(super) fn originals(&self, level: Level, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.reading.of(level.amplitudes, latents, model_output).originals(latents, model_output)
    }

    /// All slots.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All slots anew.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(super) fn restore(&mut self, values: &[f32]) {
        self.values.copy_from_slice(values);
    }
}
