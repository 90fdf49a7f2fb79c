//! The shapes that Stable Diffusion models come in, each component against torch.
//!
//! `tests/data/README.md` says what the topologies are and how the references were made. Measured: 2e-6 or less.

mod fixture;

use std::path::Path;
use std::sync::Arc;

use fixture::{data, npz, relative_l2};
use tintype::bundle::{Bundle, Component as Kind};
use tintype::engine::{Component, NamedTensor, Resources, Threads};
use tintype::import::{self, Precision};

/// Imports a topology with f32 weights and runs each of its components on the inputs of its reference.
fn matches_torch(name: &str, components: &[Kind]) {
    let folder = tempfile::tempdir().unwrap();
    let source = data("topologies").join(name);
    let target = folder.path().join("model.tintype");
    import::import(&source, &target, Precision::F32, &mut |_, _| ()).unwrap();
    let bundle = Arc::new(Bundle::open(&target).unwrap());
    for &kind in components {
        component_matches_torch(&bundle, kind, &source);
    }
}

fn component_matches_torch(bundle: &Arc<Bundle>, kind: Kind, source: &Path) {
    let reference = npz(&source.join(kind.name()).join("reference.npz"));
    let mut component = Component::load(bundle, kind, &Resources::new(Threads::new(2))).unwrap();
    let inputs: Vec<NamedTensor> =
        reference.iter().map(|(name, a)| NamedTensor::new(name, &a.shape, a.values.clone())).collect();
    let outputs = component.run(&inputs).unwrap();
    assert_eq!(outputs.len() + component.inputs().len(), reference.len(), "{kind}");
    for output in outputs {
        let expected = &reference[&output.name];
        assert_eq!(output.shape, expected.shape, "{kind} {}", output.name);
        let error = relative_l2(&output.values, &expected.values);
        assert!(error < 1e-5, "{kind} {}: {error:e}", output.name);
    }
}

#[test]
fn sd15_as_opset_14_spells_its_layer_norms() {
    matches_torch("sd15-opset14", &[Kind::TextEncoder, Kind::Unet]);
}

#[test]
fn sd15_at_one_size_with_a_scalar_float_timestep() {
    let components = [Kind::TextEncoder, Kind::Unet, Kind::VaeDecoder, Kind::VaeEncoder];
    matches_torch("sd15-opset17-fixed", &components);
}

#[test]
fn sd15_from_the_new_exporter() {
    matches_torch("sd15-dynamo", &[Kind::TextEncoder, Kind::Unet]);
}

#[test]
fn sd21_with_linear_projections_and_heads_per_level() {
    matches_torch("sd21", &[Kind::TextEncoder, Kind::Unet]);
}

#[test]
fn sdxl_with_two_text_encoders_and_added_conditions() {
    matches_torch("sdxl", &[Kind::TextEncoder, Kind::TextEncoder2, Kind::Unet]);
}

#[test]
fn lcm_with_a_guidance_embedding() {
    matches_torch("lcm", &[Kind::Unet]);
}

#[test]
fn bk_sdm_tiny_without_a_middle_block() {
    matches_torch("bk-sdm-tiny", &[Kind::Unet]);
}

#[test]
fn taesd_with_shifts_and_a_bounded_input() {
    matches_torch("taesd", &[Kind::VaeEncoder, Kind::VaeDecoder]);
}
