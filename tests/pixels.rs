//! Pixel diffusion: networks against torch, pictures against diffusers, and the command.
//!
//! `tests/data/README.md` says how the references were made.

#[path = "pixels/command.rs"]
mod command;
#[path = "checkpoint/file.rs"]
mod file;
mod fixture;
#[path = "checkpoint/formula.rs"]
mod formula;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use file::write;
use fixture::{data, npz, psnr_db, relative_l2, root};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tintype::bundle::{Bundle, Component as Kind};
use tintype::denoise::guidance::GuidanceScale;
use tintype::denoise::noise::TorchGenerator;
use tintype::denoise::run::Observer;
use tintype::engine::{Component, NamedTensor, Resources, Threads};
use tintype::error::chain;
use tintype::import::{self, Precision};
use tintype::pipeline::{Explanation, Pixels, Request, Sampler, SuperResolution, explain};
use tintype::sheet;
use tintype::tensor::Latents;
use tintype::text::Prompt;

/// The networks of `tools/goldens/pixels.py`.
fn networks() -> Value {
    file::golden(&data("pixels/networks.json.gz"))["networks"].take()
}

/// Writes a network to its folder.
fn write_network(network: &Value, folder: &Path) {
    let tensor = |entry: &Value| {
        let shape: Vec<usize> = serde_json::from_value(entry[1].clone()).unwrap();
        let name = entry[0].as_str().unwrap();
        (name.to_owned(), shape.clone(), formula::weight(name, &shape))
    };
    let tensors: Vec<_> = network["tensors"].as_array().unwrap().iter().map(tensor).collect();
    write(&folder.join("diffusion_pytorch_model.safetensors"), &tensors, Dtype::F32);
    std::fs::write(folder.join("config.json"), network["config"].to_string()).unwrap();
}

/// Writes a network as a pipeline of diffusers, with this scheduler and this `tintype.json`.
fn source(network: &Value, root: &Path, scheduler: &Value, ours: &Value) -> PathBuf {
    let folder = root.join("source");
    write_network(network, &folder.join("unet"));
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    for (name, json) in [
        ("scheduler/scheduler_config.json", scheduler),
        ("model_index.json", &json!({"_class_name": "DDPMPipeline"})),
        ("tintype.json", ours),
    ] {
        std::fs::write(folder.join(name), json.to_string()).unwrap();
    }
    folder
}

fn imported(source: &Path, precision: Precision) -> Result<(tempfile::TempDir, Arc<Bundle>), String> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.tintype");
    import::import(source, &target, precision, &mut |_, _| ()).map_err(|error| chain(&error))?;
    Ok((folder, Arc::new(Bundle::open(&target).unwrap())))
}

/// What `tools/goldens/pixels.py` gives a network.
fn inputs(component: &Component) -> Vec<NamedTensor> {
    let input = |input: &tintype::engine::graph::Input| {
        let (name, sizes) = (input.name.as_str(), [1, 0, 8, 12]);
        let shape: Vec<usize> =
            input.shape.iter().zip(sizes).map(|(dim, size)| dim.unwrap_or(size)).collect();
        let values = match (name, shape.len()) {
            ("timestep", _) => vec![501.0],
            ("class_labels", 1) => vec![2.0],
            _ => formula::given(name, &shape),
        };
        NamedTensor::new(name, &shape, values)
    };
    component.inputs().iter().map(input).collect()
}

#[test]
fn networks_compute_what_torch_does() {
    let expected = npz(&data("pixels/networks.npz"));
    for (name, network) in networks().as_object().unwrap() {
        let root = tempfile::tempdir().unwrap();
        // Not all of them can draw by themselves: the folder of the network alone will do.
        let folder = source(network, root.path(), &json!({}), &json!({})).join("unet");
        let (_keep, bundle) = imported(&folder, Precision::F32).unwrap();
        let mut component = Component::load(&bundle, Kind::Unet, &Resources::new(Threads::new(2))).unwrap();
        let inputs = inputs(&component);
        let output = component.run_for("out_sample", &inputs).unwrap();
        assert_eq!(output.shape, expected[name].shape, "{name}");
        let error = relative_l2(&output.values, &expected[name].values);
        println!("{name}: {error:.1e}");
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

#[test]
fn a_graph_of_the_exporter_computes_what_torch_does() {
    let folder = data("pixels/onnx");
    let reference = npz(&folder.join("unet/reference.npz"));
    for (precision, bound) in [(Precision::F32, 1e-5), (Precision::F16, 2e-3), (Precision::Int8, 5e-2)] {
        let root = tempfile::tempdir().unwrap();
        let scheduler = root.path().join("scheduler");
        fixture::copy(&folder.join("unet"), &root.path().join("unet"));
        std::fs::create_dir(&scheduler).unwrap();
        std::fs::write(scheduler.join("scheduler_config.json"), "{}").unwrap();
        std::fs::write(root.path().join("model_index.json"), r#"{"_class_name": "DDPMPipeline"}"#).unwrap();
        let (_keep, bundle) = imported(root.path(), precision).unwrap();
        let mut component = Component::load(&bundle, Kind::Unet, &Resources::new(Threads::new(2))).unwrap();
        let inputs: Vec<NamedTensor> =
            reference.iter().map(|(name, a)| NamedTensor::new(name, &a.shape, a.values.clone())).collect();
        let output = component.run_for("out_sample", &inputs).unwrap();
        let error = relative_l2(&output.values, &reference["out_sample"].values);
        println!("{precision:?}: {error:.1e}");
        assert!(error < bound, "{precision:?}: {error:e}");
        assert!(bundle.file("selftest/unet.npz").is_some());
    }
}

/// The pipeline of a run of `tools/goldens/pixels.py`.
fn imported_for(run: &Value, networks: &Value, null_class: &Value) -> (tempfile::TempDir, Arc<Bundle>) {
    let name = run["network"].as_str().unwrap();
    let root = tempfile::tempdir().unwrap();
    let ours = match name {
        "classes" => json!({ "classes": { "null": null_class } }),
        _ => json!({}),
    };
    let folder = source(&networks[name], root.path(), &run["scheduler"], &ours);
    imported(&folder, Precision::F32).unwrap()
}

/// The request of a run of `tools/goldens/pixels.py`.
fn request(bundle: &Bundle, run: &Value) -> Request {
    let prompt = run["label"].as_u64().map_or(String::new(), |label| label.to_string());
    let mut request =
        Request::new(bundle, Prompt::new(prompt).unwrap(), run["seed"].as_u64().unwrap()).unwrap();
    request.steps = run["steps"].as_u64().unwrap() as usize;
    request.sampler = Sampler::from_name(run["sampler"].as_str().unwrap()).unwrap();
    request.eta = run["eta"].as_f64().map(|eta| eta as f32);
    request.guidance_scale = GuidanceScale::new(run["guidance"].as_f64().unwrap_or(1.0) as f32).unwrap();
    request
}

#[test]
fn pictures_are_those_of_diffusers() {
    let golden: Value = serde_json::from_slice(&std::fs::read(data("pixels/runs.json")).unwrap()).unwrap();
    let (expected, networks) = (npz(&data("pixels/runs.npz")), networks());
    for (at, run) in golden["runs"].as_array().unwrap().iter().enumerate() {
        let (_keep, bundle) = imported_for(run, &networks, &golden["null_class"]);
        let mut pipeline = Pixels::new(bundle.clone(), Resources::new(Threads::new(2)));
        let image = pipeline.run(&request(&bundle, run), &mut ()).unwrap().remove(0);
        let expected = &expected[&at.to_string()];
        assert_eq!(image.latents.shape().to_vec(), expected.shape, "{at}");
        let error = relative_l2(image.latents.values(), &expected.values);
        println!("{at} {}: {error:.1e}", run["sampler"]);
        assert!(error < 1e-4, "{at}: {error:e}");
        let plane = 8 * 12;
        for (pixel, bytes) in image.pixels.pixels().chunks_exact(3).enumerate() {
            for (channel, &byte) in bytes.iter().enumerate() {
                let x = f64::from(expected.values[channel * plane + pixel]);
                let wanted = ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round();
                assert!((f64::from(byte) - wanted).abs() <= 1.0, "{at}: {byte} is not {wanted}");
            }
        }
    }
}

#[test]
fn what_is_shown_of_a_run_is_what_diffusers_computes() {
    let golden: Value = serde_json::from_slice(&std::fs::read(data("pixels/runs.json")).unwrap()).unwrap();
    let (expected, networks) = (npz(&data("pixels/runs.npz")), networks());
    let run = &golden["runs"][golden["explained"].as_u64().unwrap() as usize];
    let (_keep, bundle) = imported_for(run, &networks, &golden["null_class"]);
    let shown = explain(&bundle, &Resources::new(Threads::new(2)), &request(&bundle, run), &mut ()).unwrap();
    assert!(shown.words.is_none());
    assert_eq!([shown.noised.len(), shown.trajectory.len()], [5, run["steps"].as_u64().unwrap() as usize]);
    let error = |name: String, values: &Latents| {
        let error = relative_l2(values.values(), &expected[&name].values);
        println!("{name}: {error:.1e}");
        assert!(error < 1e-4, "{name}: {error:e}");
    };
    for (at, noised) in shown.noised.iter().enumerate() {
        error(format!("noised.{at}"), &noised.latents);
    }
    for (at, predicted) in shown.trajectory.iter().enumerate() {
        error(format!("original.{at}"), &predicted.latents);
    }
    let sheet = |words| sheet::draw("cat", "", &Explanation { words, ..shown.clone() });
    assert!(sheet(None).height_px() < sheet(Some(Vec::new())).height_px(), "it has two sections");
}

#[test]
fn the_model_that_ships_draws_what_torch_draws() {
    let runs: Value = serde_json::from_slice(&std::fs::read(data("beside.json")).unwrap()).unwrap();
    let run = &runs["pixels"];
    let bundle = Arc::new(Bundle::open(&root("models/emoji-pixels.tintype")).unwrap());
    let prompt = Prompt::new(run["class"].as_str().unwrap()).unwrap();
    let request = Request::new(&bundle, prompt, run["seed"].as_u64().unwrap()).unwrap();
    let mut pipeline = Pixels::new(bundle, Resources::new(Threads::new(2)));
    let image = pipeline.run(&request, &mut ()).unwrap().remove(0);
    let psnr_db = psnr_db(image.pixels.pixels(), &npz(&data("beside.npz"))["pixels"].values);
    println!("{psnr_db:.1} dB");
    assert!(psnr_db >= 38.0, "{psnr_db:.1} dB");
}

/// A small pipeline with classes, imported.
fn with_classes(root: &Path, ours: &Value, precision: Precision) -> Result<(), String> {
    let scheduler = json!({"_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2"});
    let folder = source(&networks()["classes"], root, &scheduler, ours);
    let target = root.join("pixels.tintype");
    import::import(&folder, &target, precision, &mut |_, _| ()).map(drop).map_err(|error| chain(&error))
}

#[test]
fn what_is_no_pipeline_of_pixels_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let name = |name: &str| json!({ "name": name });
    let many: Vec<Value> = ["a", "b", "c", "d", "e", "f"].map(name).to_vec();
    for (classes, says) in [
        (json!({ "names": many }), "needs 6 numbers, and the network has 5"),
        (json!({ "null": 5 }), "needs 6 numbers, and the network has 5"),
        (json!({ "names": [name("cat"), name("CAT")] }), "a name of its own for each class"),
        (json!({ "names": [name("")] }), "a name of its own for each class"),
        (json!({ "titles": [] }), "unknown field `titles`"),
    ] {
        let reason = with_classes(root.path(), &json!({ "classes": classes }), Precision::F16).unwrap_err();
        assert!(reason.contains(says), "{reason}");
    }
    with_classes(root.path(), &json!({ "classes": { "null": 4 } }), Precision::F16).unwrap();
    let folder = root.path().join("source");
    std::fs::write(folder.join("model_index.json"), r#"{"_class_name": "UnCLIPPipeline"}"#).unwrap();
    let reason = imported(&folder, Precision::F16).map(drop).unwrap_err();
    assert!(reason.contains("tintype.json: `classes` are for pipelines of pixels"), "{reason}");
    let changed = |file: &str, change: &dyn Fn(&mut Value)| {
        with_classes(root.path(), &json!({}), Precision::F16).unwrap();
        let path = root.path().join("source").join(file);
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        imported(&root.path().join("source"), Precision::F16).map(drop).unwrap_err()
    };
    let pipeline = changed("model_index.json", &|json| json["_class_name"] = json!("LDMPipeline"));
    assert!(pipeline.contains("`LDMPipeline`") && pipeline.contains("DDPMPipeline"), "{pipeline}");
    for (key, value, says) in [
        ("out_channels", json!(6), "`out_channels` is 6, expected 3"),
        ("class_embed_type", json!("timestep"), "`class_embed_type`"),
        (
            "time_embedding_type",
            json!("fourier"),
            "`time_embedding_type` is \"fourier\", expected \"positional\"",
        ),
        ("down_block_types", json!(["SkipDownBlock2D", "DownBlock2D"]), "`down_block_types`"),
        ("upsample_type", json!("bilinear"), "conv or resnet"),
        ("attention_head_dim", json!(3), "`attention_head_dim`"),
        ("resnet_time_scale_shift", json!("spatial"), "`resnet_time_scale_shift`"),
        ("act_fn", json!("mish"), "`act_fn`"),
    ] {
        let reason = changed("unet/config.json", &|json| json[key] = value.clone());
        assert!(reason.contains("config.json") && reason.contains(says), "{reason}");
    }
}

/// Looks at nothing.
struct Blind;

impl Observer for Blind {
    fn wants_original(&self) -> bool {
        false
    }

    fn after_step(&mut self, _: usize, _: &Latents, _: &[f32], _: Option<&Latents>) {}
}

#[test]
fn pictures_are_made_larger_as_diffusers_makes_them() {
    let golden: Value = serde_json::from_slice(&std::fs::read(data("pixels/runs.json")).unwrap()).unwrap();
    let (expected, networks) = (npz(&data("pixels/runs.npz")), networks());
    let small: Vec<f32> = formula::given("small", &[1, 3, 5, 7]).iter().map(|x| x / 2.0).collect();
    let small = Latents::new(small, 3, 5, 7).unwrap();
    for (at, run) in golden["upscaled"].as_array().unwrap().iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("source");
        for (name, network) in
            [("super_res_first", run["network"].as_str().unwrap()), ("super_res_last", "super_res_last")]
        {
            write_network(&networks[network], &folder.join(name));
        }
        let scheduler = folder.join("super_res_scheduler");
        std::fs::create_dir(&scheduler).unwrap();
        std::fs::write(scheduler.join("scheduler_config.json"), run["scheduler"].to_string()).unwrap();
        std::fs::write(folder.join("model_index.json"), r#"{"_class_name": "UnCLIPPipeline"}"#).unwrap();
        let (_keep, bundle) = imported(&folder, Precision::F32).unwrap();
        let mut stage = SuperResolution::new(bundle, Resources::new(Threads::new(2))).unwrap();
        assert_eq!((stage.side_px(), stage.default_steps()), (16, 7));
        let mut generator = TorchGenerator::new(run["seed"].as_u64().unwrap());
        let steps = run["steps"].as_u64().unwrap() as usize;
        let large = stage.upscale(&small, steps, &mut generator, &mut Blind).unwrap();
        let expected = &expected[&format!("upscaled.{at}")];
        assert_eq!(large.shape().to_vec(), expected.shape);
        let error = relative_l2(large.values(), &expected.values);
        println!("{at}: {error:.1e}");
        assert!(error < 1e-4, "{at}: {error:e}");
    }
    let (_keep, plain) = imported(&data("tiny"), Precision::F16).unwrap();
    assert!(SuperResolution::new(plain, Resources::new(Threads::new(1))).is_none());
}
