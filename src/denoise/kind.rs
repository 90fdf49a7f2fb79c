//! The samplers by name.

use serde_json::Value;

use super::config::{ConfigError, SchedulerConfig};
use super::ddim::{Ddim, DdimOptions};
use super::ddpm::Ddpm;
use super::dpm_solver::DpmSolver;
use super::euler::Euler;
use super::euler_ancestral::EulerAncestral;
use super::lcm::Lcm;
use super::schedule::Schedule;
use super::tcd::Tcd;
use super::unipc::UniPc;
use super::{Sampler, SamplerError};

/// A sampler. Each reads a model's `scheduler_config.json` as one class of diffusers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerKind {
    /// Denoising diffusion implicit models.
    Ddim,
    /// Denoising diffusion probabilistic models: fresh noise in every step.
    Ddpm,
    /// Latent consistency models: few steps, for models that were distilled for it.
    Lcm,
    /// Trajectory consistency distillation: as LCM, with as much fresh noise as wanted.
    Tcd,
    /// Euler's method.
    Euler,
    /// Euler's method a little further down, and fresh noise back up.
    EulerAncestral,
    /// DPM-Solver++, which remembers earlier steps.
    DpmSolver,
    /// UniPC: predicts, and corrects when it knows more.
    UniPc,
}

/// What a run is to be like.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// How many steps.
    pub steps: usize,
    /// The share of fresh noise; the sampler's own if not given.
    pub eta: Option<f32>,
    /// How many values the latents have.
    pub len: usize,
}

impl SamplerKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Lcm,
        Self::Tcd,
        Self::Euler,
        Self::EulerAncestral,
        Self::DpmSolver,
        Self::UniPc,
    ];

    /// The sampler of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name on the command line, over the socket and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Lcm => "lcm",
            Self::Tcd => "tcd",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-a",
            Self::DpmSolver => "dpmpp-2m",
            Self::UniPc => "unipc",
        }
    }

    /// The name that readers of A1111's texts know.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ddim => "DDIM",
            Self::Ddpm => "DDPM",
            Self::Lcm => "LCM",
            Self::Tcd => "TCD",
            Self::Euler => "Euler",
            Self::EulerAncestral => "Euler a",
            Self::DpmSolver => "DPM++ 2M",
            Self::UniPc => "UniPC",
        }
    }

    /// The sampler of the class that wrote a configuration, or DDIM, which reads every configuration, for one that has none
    /// here.
    pub fn of_scheduler(scheduler: &Value) -> Self {
        match scheduler["_class_name"].as_str().unwrap_or_default() {
            "DDPMScheduler" => Self::Ddpm,
            "LCMScheduler" => Self::Lcm,
            "TCDScheduler" => Self::Tcd,
            "EulerDiscreteScheduler" => Self::Euler,
            "EulerAncestralDiscreteScheduler" => Self::EulerAncestral,
            "DPMSolverMultistepScheduler" => Self::DpmSolver,
            "UniPCMultistepScheduler" => Self::UniPc,
            _ => Self::Ddim,
        }
    }

    /// Whether the sampler can do what this configuration asks for.
    pub fn can_follow(self, scheduler: &Value) -> bool {
        self.build(scheduler, RunOptions { steps: 1, eta: None, len: 0 }).is_ok()
    }

    /// The noise of training, as the sampler reads it in this scheduler configuration.
    ///
    /// # Errors
    /// [`SamplerError::Config`], [`SamplerError::Schedule`].
    pub fn schedule(self, scheduler: &Value) -> Result<Schedule, SamplerError> {
        let object = scheduler.as_object().ok_or(ConfigError::NotAnObject)?;
        Ok(Schedule::new(&SchedulerConfig::from_object(object, self)?)?)
    }

    /// The share of fresh noise that the sampler takes where nobody chooses; `None` if there is nothing to choose.
    ///
    /// Source: the defaults of `step` in diffusers 0.42.1.
    pub fn default_eta(self) -> Option<f32> {
        match self {
            Self::Ddim => Some(0.0),
            Self::Tcd => Some(0.3),
            _ => None,
        }
    }

    /// The sampler for a run with the model that this scheduler configuration comes from.
    ///
    /// # Errors
    /// [`SamplerError`]: the configuration, or what is asked for, is not for this sampler.
    pub fn build(self, scheduler: &Value, run: RunOptions) -> Result<Box<dyn Sampler>, SamplerError> {
        let RunOptions { steps, eta, len } = run;
        if eta.is_some() && self.default_eta().is_none() {
            return Err(SamplerError::NoEta { sampler: self.name() });
        }
        let object = scheduler.as_object().ok_or(ConfigError::NotAnObject)?;
        let config = &SchedulerConfig::from_object(object, self)?;
        let eta = eta.or(self.default_eta()).unwrap_or_default();
        Ok(match self {
            Self::Ddim => Box::new(Ddim::new(config, steps, DdimOptions { eta, ..DdimOptions::default() })?),
            Self::Ddpm => Box::new(Ddpm::new(config, steps)?),
            Self::Lcm => Box::new(Lcm::new(config, steps)?),
            Self::Tcd => Box::new(Tcd::new(config, steps, eta)?),
            Self::Euler => Box::new(Euler::new(config, steps)?),
            Self::EulerAncestral => Box::new(EulerAncestral::new(config, steps)?),
            Self::DpmSolver => Box::new(DpmSolver::new(config, steps, len)?),
            Self::UniPc => Box::new(UniPc::new(config, steps, len)?),
        })
    }
}
