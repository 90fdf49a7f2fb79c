//! unCLIP's sampler, with fixed and learned variance, against diffusers.

use serde_json::json;
use tintype::denoise::Sampler as _;
use tintype::denoise::noise::TorchGenerator;
use tintype::denoise::unclip::Unclip;

use super::{initial_sample, model_output, read_json, read_npy};

/// As `SIZE` of the other samplers.
const SIZE: usize = 16;
/// As of the other samplers that add noise, whose noise is torch's within 2e-6.
const TOLERANCE: f32 = 3e-6;

#[track_caller]
fn close(got: &[f32], want: &[f32], what: &str) {
    let scale = want.iter().fold(1.0f32, |scale, w| scale.max(w.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= TOLERANCE * scale, "{what}: {g} and {w}");
    }
}

#[test]
fn the_sampler_walks_as_that_of_diffusers() {
    let golden = read_json("unclip.json");
    let values = read_npy::<f32>("unclip.npy");
    let mut rest = &values[..];
    let mut next = |count| {
        let (first, others) = rest.split_at(count);
        rest = others;
        first
    };
    for case in golden["cases"].as_array().unwrap() {
        let steps = case["steps"].as_u64().unwrap() as usize;
        let mut sampler = Unclip::new(&case["config"], steps).unwrap();
        let mut generator = TorchGenerator::new(golden["seed"].as_u64().unwrap());
        let is_learned = case["config"]["variance_type"] == "learned_range";
        let (mut sample, mut seen) = (initial_sample(SIZE), Vec::new());
        for i in 0..steps {
            let mut output = vec![0.0; SIZE];
            model_output(&sample, sampler.timestep(i), &mut output);
            if is_learned {
                output.extend_from_within(..);
                output[SIZE..].iter_mut().for_each(|x| *x = -x.clamp(-1.0, 1.0));
            }
            if i == steps / 2 {
                seen = sampler.pred_original_sample(i, &sample, &output);
            }
            let mut noise = vec![0.0; if sampler.adds_noise(i) { SIZE } else { 0 }];
            if !noise.is_empty() {
                generator.fill_normal(&mut noise);
            }
            sampler.step(i, &mut sample, &output, &noise);
            assert_eq!(sampler.timestep(i), next(1)[0], "{case}");
            close(&sample, next(SIZE), &case.to_string());
        }
        close(&seen, next(SIZE), &case.to_string());
    }
    assert!(next(0).is_empty() && rest.is_empty());
}

#[test]
fn what_the_class_does_not_know_is_refused() {
    let refusal = |config, steps| Unclip::new(&config, steps).map(|_| ()).unwrap_err().to_string();
    let says = [
        (json!({"beta_schedule": "linear"}), 2, "`beta_schedule` is \"linear\", expected squaredcos_cap_v2"),
        (json!({"prediction_type": "v_prediction"}), 2, "expected one of epsilon, sample"),
        (json!({"variance_type": "fixed_large"}), 2, "expected one of fixed_small_log, learned_range"),
        (json!({}), 0, "0 steps asked for, expected 1 to 1000"),
        (json!({}), 1001, "1001 steps asked for"),
        (json!([]), 2, "not a JSON object"),
    ];
    for (config, steps, text) in says {
        let refusal = refusal(config, steps);
        assert!(refusal.contains(text), "{refusal}");
    }
    let one = Unclip::new(&json!({}), 1).unwrap();
    assert_eq!((one.steps(), one.timestep(0)), (1, 999.0));
}
