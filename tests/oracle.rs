//! The engine against stock tract: the same ONNX file, run by tract's own operations.

mod fixture;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use fixture::{Array, data, npz, relative_l2};
use tintype::bundle::{Bundle, Component as Kind};
use tintype::engine::{Component, NamedTensor, Resources, Threads};
use tintype::import::{self, Precision};
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid as _;

/// The outputs of the graph in `file`, in its order, by tract alone.
fn stock(file: &Path, given: &HashMap<String, Array>) -> Vec<Vec<f32>> {
    let mut model = tract_onnx::onnx().model_for_path(file).unwrap();
    let mut inputs = tvec!();
    for at in 0..model.inputs.len() {
        let array = &given[&model.node(model.inputs[at].node).name];
        let dtype = model.input_fact(at).unwrap().datum_type.concretize().unwrap();
        model.set_input_fact(at, InferenceFact::dt_shape(dtype, &array.shape)).unwrap();
        let tensor = Tensor::from_shape(&array.shape, &array.values).unwrap();
        inputs.push(tensor.cast_to_dt(dtype).unwrap().into_owned().into_tvalue());
    }
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let outputs = plan.run(inputs).unwrap();
    let values = |output: &TValue| output.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
    outputs.iter().map(values).collect()
}

/// Runs each of the components both ways; their references give the inputs.
fn agrees(source: &str, components: &[Kind], reference: impl Fn(Kind) -> std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.tintype");
    import::import(&data(source), &target, Precision::F32, &mut |_, _| ()).unwrap();
    let bundle = Arc::new(Bundle::open(&target).unwrap());
    for &kind in components {
        let given = npz(&reference(kind));
        let expected = stock(&data(source).join(kind.name()).join("model.onnx"), &given);
        let mut component = Component::load(&bundle, kind, &Resources::new(Threads::new(1))).unwrap();
        let inputs: Vec<NamedTensor> =
            given.iter().map(|(name, a)| NamedTensor::new(name, &a.shape, a.values.clone())).collect();
        let outputs = component.run(&inputs).unwrap();
        assert_eq!(outputs.len(), expected.len(), "{source} {kind}");
        for (output, expected) in outputs.iter().zip(&expected) {
            let error = relative_l2(&output.values, expected);
            assert!(error < 2e-5, "{source} {kind} {}: {error:e}", output.name);
        }
    }
}

#[test]
fn a_whole_pipeline() {
    let components = [Kind::TextEncoder, Kind::Unet, Kind::VaeDecoder, Kind::VaeEncoder];
    agrees("tiny", &components, |kind| data(&format!("tiny/reference/{kind}.npz")));
}

#[test]
fn other_topologies() {
    for (name, components) in [
        ("topologies/sd15-opset17-fixed", &[Kind::TextEncoder, Kind::Unet, Kind::VaeDecoder][..]),
        ("topologies/sd21", &[Kind::Unet]),
        ("topologies/bk-sdm-tiny", &[Kind::Unet]),
        ("topologies/taesd", &[Kind::VaeEncoder, Kind::VaeDecoder]),
    ] {
        agrees(name, components, |kind| data(name).join(kind.name()).join("reference.npz"));
    }
}
