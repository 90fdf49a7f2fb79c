//! What `scheduler_config.json` says, checked once.
//!
//! Every sampler stands for a class of diffusers, and a key that the file leaves out takes the default of that class,
//! not the value that Stable Diffusion happens to use: the two differ in the betas, in clipping and in the last step,
//! and a reader with the wrong defaults draws a plausible, wrong picture. Keys that mean nothing to the sampler are
//! skipped, so the files of other classes are read too: which sampler runs is not this file's to say.
//!
//! Source: the constructors of diffusers 0.42.1, and its `from_config`, which does the same.

use serde_json::{Map, Value};

use super::consistency::Distillation;
use super::ddpm::Variance;
use super::keys::Keys;
use super::kind::SamplerKind;
use super::sigmas::SigmaOptions;
use super::solver::SolverOptions;

/// The longest noise schedule that is accepted. Published models have 1000 steps, a few 4000.
pub const MAX_TRAIN_TIMESTEPS: usize = 4096;

/// Why a scheduler configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The bytes are not JSON.
    #[error("the scheduler configuration is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// The bytes are JSON, but not an object.
    #[error("the scheduler configuration is not a JSON object")]
    NotAnObject,
    /// A key has a value of the wrong type, out of range or unknown.
    #[error("scheduler configuration: `{key}` is {got}, expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What the file has, as JSON, shortened.
        got: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A key has a value that this sampler cannot follow; others may.
    #[error(
        "this sampler cannot follow the model's scheduler configuration: `{key}` is {got}, expected {expected}; \
         choose another sampler"
    )]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What the file has, as JSON, shortened.
        got: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// There is not one trained beta per timestep.
    #[error(
        "scheduler configuration: `trained_betas` has {got} values, expected {expected}, one per timestep"
    )]
    TrainedBetas {
        /// `num_train_timesteps`.
        expected: usize,
        /// The length of the list.
        got: usize,
    },
}

/// How the noise variances of the forward process were chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Betas {
    /// Evenly spaced from `start` to `end`.
    Linear {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// The square roots are evenly spaced.
    ScaledLinear {
        /// The first beta.
        start: f64,
        /// The last beta.
        end: f64,
    },
    /// From a squared cosine of the time, capped at 0.999.
    SquaredCosCapV2,
    /// Listed, one per timestep.
    Trained(Vec<f32>),
}

/// What the model's output stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity, `sqrt(a) noise - sqrt(1 - a) original`.
    VPrediction,
    /// The original sample.
    Sample,
}

/// How the timesteps of a run are picked from those of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Multiples of a whole stride, counted from 0.
    Leading,
    /// Evenly spaced, counted down from the last.
    Trailing,
    /// Evenly spaced, both ends included.
    Linspace,
}

/// How the predicted original sample is kept in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// It is not.
    Off,
    /// Clamped to `-range..=range`.
    Fixed {
        /// The largest magnitude.
        range: f32,
    },
    /// Dynamic thresholding: clamped to a quantile of its own magnitudes and divided by it.
    Dynamic {
        /// Which quantile, 0 to 1.
        ratio: f32,
        /// The largest threshold; the smallest is 1.
        max: f32,
    },
}

/// A scheduler configuration with every value in range. Read it with [`from_json`](Self::from_json).
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// Timesteps of the forward process, 1 to [`MAX_TRAIN_TIMESTEPS`].
    pub num_train_timesteps: usize,
    /// The noise variances.
    pub betas: Betas,
    /// Whether the variances are rescaled so that nothing of the picture is left at the last timestep.
    pub rescale_betas_zero_snr: bool,
    /// What the model's output stands for.
    pub prediction_type: PredictionType,
    /// How timesteps are picked.
    pub timestep_spacing: TimestepSpacing,
    /// Added to each timestep under [`TimestepSpacing::Leading`].
    pub steps_offset: u32,
    /// Whether the last step goes to no noise at all, instead of to the noise of timestep 0.
    pub set_alpha_to_one: bool,
    /// How the predicted original sample is kept in range.
    pub clip: Clip,
    /// How much fresh noise a step of DDPM adds.
    pub variance: Variance,
    /// What LCM and TCD know of how the model was distilled.
    pub distillation: Distillation,
    /// How Euler, DPM-Solver++ and UniPC choose levels of noise.
    pub sigmas: SigmaOptions,
    /// How DPM-Solver++ and UniPC use what they remember.
    pub solver: SolverOptions,
}

/// What a class of diffusers takes for granted, and what it can do.
struct Class {
    /// The first beta, the last, and whether the square roots between them are evenly spaced.
    betas: (f64, f64, bool),
    /// How timesteps are picked.
    timestep_spacing: TimestepSpacing,
    /// Whether the predicted original sample is clamped, if it can be.
    clip_sample: Option<bool>,
    /// Whether the predicted original sample can be thresholded.
    can_threshold: bool,
}

impl Class {
    fn of(sampler: SamplerKind) -> Self {
        const LINEAR: (f64, f64, bool) = (0.0001, 0.02, false);
        const SCALED: (f64, f64, bool) = (0.000_85, 0.012, true);
        let (betas, timestep_spacing, clip_sample, can_threshold) = match sampler {
            SamplerKind::Ddim | SamplerKind::Ddpm => (LINEAR, TimestepSpacing::Leading, Some(true), true),
            SamplerKind::Lcm => (SCALED, TimestepSpacing::Leading, Some(false), true),
            SamplerKind::Tcd => (SCALED, TimestepSpacing::Leading, None, false),
            SamplerKind::Euler | SamplerKind::EulerAncestral => {
                (LINEAR, TimestepSpacing::Linspace, None, false)
            }
            SamplerKind::DpmSolver | SamplerKind::UniPc => (LINEAR, TimestepSpacing::Linspace, None, true),
        };
        Self { betas, timestep_spacing, clip_sample, can_threshold }
    }
}

impl SchedulerConfig {
    /// Reads the bytes of a `scheduler_config.json` as the class of `sampler` does.
    ///
    /// # Errors
    /// - [`ConfigError::Json`], [`ConfigError::NotAnObject`] if it is not a JSON object.
    /// - As [`from_object`](Self::from_object).
    pub fn from_json(bytes: &[u8], sampler: SamplerKind) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        Self::from_object(value.as_object().ok_or(ConfigError::NotAnObject)?, sampler)
    }

    /// Reads a scheduler configuration that is already parsed.
    ///
    /// # Errors
    /// - [`ConfigError::Value`] if a value has the wrong type, is out of range or unknown.
    /// - [`ConfigError::Unsupported`] if this sampler cannot follow a value.
    /// - [`ConfigError::TrainedBetas`] if `trained_betas` is not `num_train_timesteps` long.
    pub fn from_object(object: &Map<String, Value>, sampler: SamplerKind) -> Result<Self, ConfigError> {
        let (keys, class) = (Keys(object), Class::of(sampler));
        let num_train_timesteps =
            keys.read("num_train_timesteps", 1000, "an integer from 1 to 4096", |v| {
                usize::try_from(v.as_u64()?).ok().filter(|n| (1..=MAX_TRAIN_TIMESTEPS).contains(n))
            })?;
        Ok(Self {
            num_train_timesteps,
            betas: keys.betas(num_train_timesteps, &class)?,
            rescale_betas_zero_snr: keys.flag("rescale_betas_zero_snr", false)?,
            prediction_type: keys.prediction_type()?,
            timestep_spacing: keys.timestep_spacing(class.timestep_spacing)?,
            steps_offset: keys.read("steps_offset", 0, "an integer from 0 to 4095", |v| {
                u32::try_from(v.as_u64()?).ok().filter(|&offset| (offset as usize) < MAX_TRAIN_TIMESTEPS)
            })?,
            set_alpha_to_one: keys.flag("set_alpha_to_one", true)?,
            clip: keys.clip(&class)?,
            variance: Variance::read(&keys, sampler)?,
            distillation: Distillation::read(&keys, sampler, num_train_timesteps)?,
            sigmas: SigmaOptions::read(&keys, sampler)?,
            solver: SolverOptions::read(&keys, sampler)?,
        })
    }
}

/// What the common keys say.
impl Keys<'_> {
    fn beta(&self, key: &'static str, default: f64) -> Result<f64, ConfigError> {
        self.read(key, default, "a number between 0 and 1", as_beta)
    }

    fn betas(&self, num_train_timesteps: usize, class: &Class) -> Result<Betas, ConfigError> {
        if let Some(betas) = self.trained_betas()? {
            return match betas.len() == num_train_timesteps {
                true => Ok(Betas::Trained(betas)),
                false => Err(ConfigError::TrainedBetas { expected: num_train_timesteps, got: betas.len() }),
            };
        }
        let (default_start, default_end, is_scaled) = class.betas;
        let start = self.beta("beta_start", default_start)?;
        let end = self.beta("beta_end", default_end)?;
        let (linear, scaled) = (Betas::Linear { start, end }, Betas::ScaledLinear { start, end });
        let default = if is_scaled { scaled.clone() } else { linear.clone() };
        let expected = "one of linear, scaled_linear, squaredcos_cap_v2 (or a list in `trained_betas`)";
        self.read("beta_schedule", default, expected, |v| match v.as_str()? {
            "linear" => Some(linear.clone()),
            "scaled_linear" => Some(scaled.clone()),
            "squaredcos_cap_v2" => Some(Betas::SquaredCosCapV2),
            _ => None,
        })
    }

    fn trained_betas(&self) -> Result<Option<Vec<f32>>, ConfigError> {
        self.read("trained_betas", None, "null or a list of numbers between 0 and 1", |v| match v {
            Value::Null => Some(None),
            Value::Array(list) => {
                list.iter().map(|b| Some(as_beta(b)? as f32)).collect::<Option<_>>().map(Some)
            }
            _ => None,
        })
    }

    fn prediction_type(&self) -> Result<PredictionType, ConfigError> {
        let expected = "one of epsilon, v_prediction, sample";
        self.read("prediction_type", PredictionType::Epsilon, expected, |v| match v.as_str()? {
            "epsilon" => Some(PredictionType::Epsilon),
            "v_prediction" => Some(PredictionType::VPrediction),
            "sample" => Some(PredictionType::Sample),
            _ => None,
        })
    }

    fn timestep_spacing(&self, default: TimestepSpacing) -> Result<TimestepSpacing, ConfigError> {
        let expected = "one of leading, trailing, linspace";
        self.read("timestep_spacing", default, expected, |v| match v.as_str()? {
            "leading" => Some(TimestepSpacing::Leading),
            "trailing" => Some(TimestepSpacing::Trailing),
            "linspace" => Some(TimestepSpacing::Linspace),
            _ => None,
        })
    }

    fn clip(&self, class: &Class) -> Result<Clip, ConfigError> {
        let ratio = self.read("dynamic_thresholding_ratio", 0.995, "a number from 0 to 1", |v| {
            Some(v.as_f64()? as f32).filter(|ratio| (0.0..=1.0).contains(ratio))
        })?;
        let max = self.positive("sample_max_value", 1.0)?;
        let range = self.positive("clip_sample_range", 1.0)?;
        let thresholding = class.can_threshold && self.flag("thresholding", false)?;
        let clip_sample = match class.clip_sample {
            Some(default) => self.flag("clip_sample", default)?,
            None => false,
        };
        Ok(match (thresholding, clip_sample) {
            (true, _) => Clip::Dynamic { ratio, max },
            (false, true) => Clip::Fixed { range },
            (false, false) => Clip::Off,
        })
    }
}

fn as_beta(value: &Value) -> Option<f64> {
    value.as_f64().filter(|beta| *beta > 0.0 && *beta < 1.0)
}
