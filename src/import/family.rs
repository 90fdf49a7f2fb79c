//! What a model does best, by the scheduler that it was published with.
//!
//! | scheduler | sampler | steps | guidance |
//! |---|---|---|---|
//! | LCM, TCD | lcm, tcd | 4 | none; 8.5 for a network that is told the scale |
//! | Euler, Euler ancestral with trailing timesteps, noise predicted (Turbo) | euler, euler-a | 4 | none |
//! | any other | that of its class, or DDIM | 20 | 7.5; 5 for XL |
//!
//! Source: model cards of LCM, SD-Turbo and SDXL-Turbo; the defaults of `LatentConsistencyModelPipeline`,
//! `StableDiffusionPipeline` and `StableDiffusionXLPipeline` in diffusers 0.42.1, whose 50 steps are long on a board.

use serde_json::Value;

use crate::pipeline::Sampler;

/// Guidance of 1: the model runs once a step.
const NO_GUIDANCE: f64 = 1.0;
/// The steps of models that were distilled to need few: the most that they were trained for.
const FEW_STEPS: usize = 4;

/// What a model does best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    /// How to draw.
    pub sampler: Sampler,
    /// In how many steps.
    pub steps: usize,
    /// How strictly to follow the prompt.
    pub guidance: f64,
}

impl Family {
    /// Of a model with this scheduler configuration; `is_told_guidance` if its UNet has an input for the scale, `is_xl` if it
    /// has one for sizes.
    pub fn new(scheduler: &Value, is_told_guidance: bool, is_xl: bool) -> Self {
        let of_class = Sampler::of_scheduler(scheduler);
        let sampler = if of_class.can_follow(scheduler) { of_class } else { Sampler::Ddim };
        let is_turbo = scheduler["timestep_spacing"] == "trailing"
            && !matches!(scheduler["prediction_type"].as_str(), Some("v_prediction" | "sample"))
            && scheduler["rescale_betas_zero_snr"] != true;
        let (steps, guidance) = match sampler {
            Sampler::Lcm | Sampler::Tcd if is_told_guidance => (FEW_STEPS, 8.5),
            Sampler::Lcm | Sampler::Tcd => (FEW_STEPS, NO_GUIDANCE),
            Sampler::Euler | Sampler::EulerAncestral if is_turbo => (FEW_STEPS, NO_GUIDANCE),
            _ => (20, if is_xl { 5.0 } else { 7.5 }),
        };
        Self { sampler, steps, guidance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_family_follows_its_scheduler() {
        let family = |scheduler: Value, told| {
            let Family { sampler, steps, guidance } = Family::new(&scheduler, told, false);
            (sampler.name(), steps, guidance)
        };
        let class = |name: &str| json!({"_class_name": name, "beta_schedule": "scaled_linear"});
        let trailing = |name: &str| json!({"_class_name": name, "timestep_spacing": "trailing"});
        assert_eq!(family(class("LCMScheduler"), true), ("lcm", 4, 8.5));
        assert_eq!(family(class("LCMScheduler"), false), ("lcm", 4, 1.0));
        assert_eq!(family(class("TCDScheduler"), false), ("tcd", 4, 1.0));
        assert_eq!(family(trailing("EulerAncestralDiscreteScheduler"), false), ("euler-a", 4, 1.0));
        assert_eq!(family(trailing("EulerDiscreteScheduler"), false), ("euler", 4, 1.0));
        assert_eq!(family(class("EulerDiscreteScheduler"), false), ("euler", 20, 7.5));
        assert_eq!(family(class("PNDMScheduler"), false), ("ddim", 20, 7.5));
        assert_eq!(family(json!({}), false), ("ddim", 20, 7.5));
        let mut zero_snr = trailing("EulerDiscreteScheduler");
        zero_snr["prediction_type"] = json!("v_prediction");
        assert_eq!(family(zero_snr, false), ("euler", 20, 7.5));
        assert_eq!(Family::new(&class("EulerDiscreteScheduler"), false, true).guidance, 5.0);
        assert_eq!(Family::new(&trailing("EulerAncestralDiscreteScheduler"), false, true).guidance, 1.0);
    }

    #[test]
    fn what_a_class_has_and_its_sampler_lacks_is_drawn_with_ddim() {
        let stochastic =
            json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"});
        assert_eq!(Family::new(&stochastic, false, false).sampler, Sampler::Ddim);
        let plain = json!({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"});
        assert_eq!(Family::new(&plain, false, false).sampler, Sampler::DpmSolver);
    }
}
