//! All samplers but DDIM, over a grid of configurations, against diffusers.

use serde_json::{Value, json};
use tintype::denoise::Sampler;
use tintype::denoise::kind::{RunOptions, SamplerKind};
use tintype::denoise::noise::TorchGenerator;

use super::{initial_sample, model_output, read_json, read_npy};

/// `SIZE` in tools/goldens/samplers.py.
const SIZE: usize = 16;

fn build(kind: SamplerKind, config: &Value, steps: usize, eta: Option<f32>) -> Box<dyn Sampler> {
    let built = kind.build(config, RunOptions { steps, eta, len: SIZE });
    built.unwrap_or_else(|error| panic!("{kind:?} {config} {steps}: {error}"))
}

fn refusal(name: &str, config: Value, steps: usize, eta: Option<f32>) -> String {
    let kind = SamplerKind::from_name(name).unwrap();
    let built = kind.build(&config, RunOptions { steps, eta, len: SIZE });
    built.map(|_| ()).expect_err(name).to_string()
}

/// Whether the sampler returns what the model saw, in diffusers.
fn returns_originals(kind: SamplerKind) -> bool {
    !matches!(kind, SamplerKind::Tcd | SamplerKind::DpmSolver | SamplerKind::UniPc)
}

/// How far a walk may be from diffusers', relative to the largest value of a step; the reasons are in tests/data/README.md.
fn tolerance(kind: SamplerKind, config: &Value, adds_noise: bool) -> f32 {
    match kind {
        SamplerKind::UniPc if config["solver_order"] == 3 => 1e-5,
        SamplerKind::DpmSolver | SamplerKind::UniPc => 1e-6,
        SamplerKind::Euler if config["use_karras_sigmas"] == true => 1e-6,
        _ if adds_noise => 3e-6,
        _ => 0.0,
    }
}

/// The next golden values, compared.
struct Golden<'a> {
    values: std::slice::Iter<'a, f32>,
    tolerance: f32,
    what: String,
}

impl Golden<'_> {
    /// Whole timesteps are equal; those between two are found by a logarithm.
    fn timestep(&mut self, got: f32) {
        let want = *self.values.next().unwrap();
        let close = if want.fract() == 0.0 && got.fract() == 0.0 { 0.0 } else { 2e-4 };
        assert!((got - want).abs() <= close, "{}: timestep {got}, expected {want}", self.what);
    }

    fn values(&mut self, got: &[f32]) {
        let want = &self.values.as_slice()[..got.len()];
        let scale = want.iter().fold(1.0f32, |scale, w| scale.max(w.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= self.tolerance * scale, "{} [{i}]: {g} and {w}", self.what);
        }
        self.values = self.values.as_slice()[got.len()..].iter();
    }
}

/// A run as `trajectory` of tools/goldens/samplers.py makes it.
fn compare(sampler: &mut dyn Sampler, kind: SamplerKind, seed: u64, golden: &mut Golden) {
    let mut generator = TorchGenerator::new(seed);
    let sigma = sampler.init_noise_sigma();
    golden.values(&[sigma]);
    let mut sample: Vec<f32> = initial_sample(SIZE).iter().map(|x| x * sigma).collect();
    let mut output = vec![0.0; SIZE];
    let mut seen = Vec::new();
    for i in 0..sampler.steps() {
        let given = given(sampler, i, &sample);
        model_output(&given, sampler.timestep(i), &mut output);
        if i == sampler.steps() / 2 {
            seen = sampler.pred_original_sample(i, &sample, &output);
        }
        advance(sampler, i, &mut sample, &output, &mut generator);
        golden.timestep(sampler.timestep(i));
        golden.values(&given[..1]);
        golden.values(&sample);
    }
    if returns_originals(kind) {
        golden.values(&seen);
    }
}

/// What the model is given.
fn given(sampler: &dyn Sampler, index: usize, sample: &[f32]) -> Vec<f32> {
    sample.iter().map(|x| x / sampler.input_divisor(index)).collect()
}

fn advance(
    sampler: &mut dyn Sampler,
    index: usize,
    sample: &mut [f32],
    output: &[f32],
    generator: &mut TorchGenerator,
) {
    let mut noise = Vec::new();
    if sampler.adds_noise(index) {
        noise.resize(sample.len(), 0.0);
        generator.fill_normal(&mut noise);
    }
    sampler.step(index, sample, output, &noise);
}

#[test]
fn samplers_walk_as_those_of_diffusers() {
    let golden = read_json("samplers.json");
    let values = read_npy::<f32>("samplers.npy");
    let mut rest = values.iter();
    for case in golden["cases"].as_array().unwrap() {
        let kind = SamplerKind::from_name(case["sampler"].as_str().unwrap()).unwrap();
        let config = &golden["configs"][case["config"].as_u64().unwrap() as usize];
        let steps = case["steps"].as_u64().unwrap() as usize;
        let mut sampler = build(kind, config, steps, case["eta"].as_f64().map(|eta| eta as f32));
        assert_eq!(sampler.steps(), steps);
        let tolerance = tolerance(kind, config, (0..steps).any(|i| sampler.adds_noise(i)));
        let mut walk = Golden { values: rest, tolerance, what: format!("{config} {case}") };
        compare(&mut *sampler, kind, golden["seed"].as_u64().unwrap(), &mut walk);
        rest = walk.values;
    }
    assert_eq!(rest.next(), None);
}

/// Takes a sample through steps; the model is the formula of the goldens.
fn walk(sampler: &mut dyn Sampler, steps: std::ops::Range<usize>, sample: &mut [f32], seed: u64) {
    let (mut output, mut generator) = (vec![0.0; SIZE], TorchGenerator::new(seed));
    for i in steps {
        model_output(&given(sampler, i, sample), sampler.timestep(i), &mut output);
        advance(sampler, i, sample, &output, &mut generator);
    }
}

#[test]
fn a_walk_goes_on_from_what_it_remembered() {
    for kind in SamplerKind::ALL {
        for order in [1, 2, 3] {
            let config = json!({"beta_schedule": "scaled_linear", "solver_order": order});
            let mut whole = initial_sample(SIZE);
            let mut first = build(kind, &config, 9, None);
            for i in 0..9 {
                walk(&mut *first, i..i + 1, &mut whole, i as u64);
            }
            for at in 1..9 {
                let mut sample = initial_sample(SIZE);
                let (mut before, mut after) = (build(kind, &config, 9, None), build(kind, &config, 9, None));
                (0..at).for_each(|i| walk(&mut *before, i..i + 1, &mut sample, i as u64));
                after.remember(before.memory());
                (at..9).for_each(|i| walk(&mut *after, i..i + 1, &mut sample, i as u64));
                assert_eq!(sample, whole, "{kind:?} of order {order}, interrupted after {at} steps");
            }
        }
    }
}

#[test]
fn a_run_that_ends_without_noise_stays_finite_where_diffusers_returns_nan() {
    let config = json!({"beta_schedule": "scaled_linear", "solver_type": "bh1"});
    let mut sample = initial_sample(SIZE);
    walk(&mut *build(SamplerKind::UniPc, &config, 4, None), 0..4, &mut sample, 0);
    assert!(sample.iter().all(|x| x.is_finite()), "{sample:?}");
}

#[test]
fn every_number_of_steps_is_walked_or_refused() {
    for kind in SamplerKind::ALL {
        for spacing in ["leading", "trailing", "linspace"] {
            for karras in [false, true] {
                let config = json!({
                    "beta_schedule": "scaled_linear", "beta_start": 0.000_85, "beta_end": 0.012,
                    "clip_sample": false, "timestep_spacing": spacing, "use_karras_sigmas": karras,
                });
                for steps in (0..40).chain([50, 51, 61, 103, 250, 499, 500, 501, 998, 999, 1000, 1001]) {
                    let what = format!("{kind:?} {config} {steps}");
                    let Ok(mut sampler) = kind.build(&config, RunOptions { steps, eta: None, len: SIZE })
                    else {
                        assert!(steps == 0 || steps > 40, "{what} is refused");
                        continue;
                    };
                    assert_eq!(sampler.steps(), steps, "{what}");
                    let mut sample = initial_sample(SIZE);
                    let sigma = sampler.init_noise_sigma();
                    sample.iter_mut().for_each(|x| *x *= sigma);
                    walk(&mut *sampler, 0..steps, &mut sample, 0);
                    assert!(sample.iter().all(|x| x.is_finite()), "{what}: {sample:?}");
                }
            }
        }
    }
}

#[test]
fn what_a_sampler_cannot_follow_is_refused() {
    let cannot = |key: &str, got: &str, expected: &str| {
        format!(
            "this sampler cannot follow the model's scheduler configuration: `{key}` is {got}, expected {expected}; \
             choose another sampler"
        )
    };
    let cases = [
        ("dpmpp-2m", json!({"algorithm_type": "sde-dpmsolver++"}), "dpmsolver++"),
        ("dpmpp-2m", json!({"lambda_min_clipped": -5.1}), "null, for no clipping"),
        ("dpmpp-2m", json!({"variance_type": "learned_range"}), "null or a fixed one"),
        ("dpmpp-2m", json!({"use_lu_lambdas": true}), "false or null"),
        ("unipc", json!({"use_flow_sigmas": true}), "false or null"),
        ("unipc", json!({"predict_x0": false}), "true"),
        ("unipc", json!({"lower_order_final": false}), "true, or final_sigmas_type sigma_min beside it"),
        ("euler", json!({"use_beta_sigmas": true}), "false or null"),
        ("euler", json!({"interpolation_type": "log_linear"}), "linear"),
        ("euler", json!({"timestep_type": "continuous"}), "discrete"),
        ("euler-a", json!({"prediction_type": "sample"}), "epsilon or v_prediction"),
        (
            "ddpm",
            json!({"variance_type": "learned"}),
            "one of fixed_small, fixed_small_log, fixed_large (a learned variance is not read)",
        ),
    ];
    for (name, config, expected) in cases {
        let (key, got) = config.as_object().unwrap().iter().next().unwrap();
        assert_eq!(refusal(name, config.clone(), 5, None), cannot(key, &got.to_string(), expected));
        let ddim = SamplerKind::Ddim.build(&config, RunOptions { steps: 5, eta: None, len: SIZE });
        assert!(ddim.is_ok() || name == "euler-a", "{config}");
    }
}

#[test]
fn a_request_that_a_sampler_cannot_serve_is_refused() {
    for kind in SamplerKind::ALL {
        let refused = |config: Value, steps, eta| refusal(kind.name(), config, steps, eta);
        let is_distilled = matches!(kind, SamplerKind::Lcm | SamplerKind::Tcd);
        assert!(refused(json!({}), 0, None).starts_with("0 steps asked for, expected 1 to "), "{kind:?}");
        assert!(
            refused(json!({}), 1001, None).starts_with("1001 steps asked for, expected 1 to "),
            "{kind:?}"
        );
        let zero_snr = json!({"rescale_betas_zero_snr": true});
        if is_distilled || kind == SamplerKind::Ddpm {
            let message =
                "prediction type epsilon cannot be sampled at zero terminal SNR (rescale_betas_zero_snr)";
            assert_eq!(refused(zero_snr, 4, None), message);
        }
        if is_distilled {
            assert_eq!(
                refused(json!({"original_inference_steps": 20}), 21, None),
                "21 steps asked for, expected 1 to 20: the model was distilled on 20 (original_inference_steps), \
                 and each of its steps is one of those"
            );
            assert_eq!(
                refused(json!({"original_inference_steps": 2000}), 4, None),
                "scheduler configuration: `original_inference_steps` is 2000, expected an integer from 1 to \
                 num_train_timesteps"
            );
            let short = refused(json!({"num_train_timesteps": 20}), 4, None);
            assert!(short.contains("`original_inference_steps` is 50 by default"), "{short}");
        }
        if kind.default_eta().is_some() {
            assert!(refused(json!({}), 4, Some(1.5)).starts_with("eta is 1.5, expected 0"));
            assert!(refused(json!({}), 4, Some(f32::NAN)).starts_with("eta is NaN, expected 0"));
        } else {
            let message = format!("sampler {} has no eta: leave it out, or choose ddim or tcd", kind.name());
            assert_eq!(refused(json!({}), 4, Some(0.0)), message);
        }
    }
}

#[test]
fn the_class_that_wrote_a_configuration_has_its_sampler() {
    let of = |class: &str| SamplerKind::of_scheduler(&json!({"_class_name": class})).name();
    let classes = [
        ("DDIMScheduler", "ddim"),
        ("PNDMScheduler", "ddim"),
        ("DDPMScheduler", "ddpm"),
        ("LCMScheduler", "lcm"),
        ("TCDScheduler", "tcd"),
        ("EulerDiscreteScheduler", "euler"),
        ("EulerAncestralDiscreteScheduler", "euler-a"),
        ("DPMSolverMultistepScheduler", "dpmpp-2m"),
        ("UniPCMultistepScheduler", "unipc"),
    ];
    classes.iter().for_each(|(class, name)| assert_eq!(of(class), *name));
    assert_eq!(SamplerKind::of_scheduler(&json!({})), SamplerKind::Ddim);
    for kind in SamplerKind::ALL {
        assert_eq!(SamplerKind::from_name(kind.name()), Some(kind));
    }
}
