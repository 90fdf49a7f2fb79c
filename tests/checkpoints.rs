//! Models in safetensors: against torch, and against the same weights from ONNX; and each way in which they can be wrong.
//!
//! `tests/data/README.md` says how the references were made. Measured: 2e-6 or less against torch.

#[path = "checkpoint/file.rs"]
mod file;
mod fixture;
#[path = "checkpoint/formula.rs"]
mod formula;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file::{Named, write};
use fixture::{Array, data, npz, relative_l2};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tintype::bundle::{Bundle, Component as Kind, Values, unpack_o8k4};
use tintype::engine::{Component, NamedTensor, Resources, Threads};
use tintype::error::chain;
use tintype::import::{self, Precision};
use tintype::kernels::Arithmetic;
use tintype::lora::{self, Lora};
use tintype::pipeline::{Request, TextToImage};
use tintype::text::Prompt;

const SCHEDULER: &str = r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}"#;

/// The cases of `tools/goldens/checkpoints.py`.
fn cases() -> Value {
    file::golden(&data("checkpoints/files.json.gz"))["files"].take()
}

/// The tensors of a case, by the formula.
fn tensors(case: &Value) -> Vec<Named> {
    let tensor = |entry: &Value| {
        let shape: Vec<usize> = serde_json::from_value(entry[1].clone()).unwrap();
        let name = entry[0].as_str().unwrap();
        (name.to_owned(), shape.clone(), formula::weight(name, &shape))
    };
    case["tensors"].as_array().unwrap().iter().map(tensor).collect()
}

fn open(source: &Path, precision: Precision) -> Result<(tempfile::TempDir, Arc<Bundle>), String> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.tintype");
    import::import(source, &target, precision, &mut |_, _| ()).map_err(|error| chain(&error))?;
    Ok((folder, Arc::new(Bundle::open(&target).unwrap())))
}

/// What `tools/goldens/checkpoints.py` gives a component.
fn inputs(component: &Component, kind: Kind, vocabulary: usize) -> Vec<NamedTensor> {
    let input = |input: &tintype::engine::graph::Input| {
        let name = input.name.as_str();
        let sizes = match (kind, name) {
            (Kind::VaeDecoder, _) => [1, 0, 4, 8],
            (Kind::VaeEncoder, _) => [1, 0, 32, 64],
            (_, "encoder_hidden_states" | "input_ids") => [1, 77, 0, 0],
            _ => [1, 0, 8, 16],
        };
        let shape: Vec<usize> =
            input.shape.iter().zip(sizes).map(|(dim, size)| dim.unwrap_or(size)).collect();
        let values = match name {
            "timestep" => vec![501.0],
            "time_ids" => vec![64.0, 128.0, 8.0, 0.0, 64.0, 128.0],
            "input_ids" => ids(vocabulary),
            _ => formula::given(name, &shape),
        };
        NamedTensor::new(name, &shape, values)
    };
    component.inputs().iter().map(input).collect()
}

/// Begin, some tokens, and ends.
fn ids(vocabulary: usize) -> Vec<f32> {
    let mut ids = vec![(vocabulary - 1) as f32; 77];
    ids[..9].copy_from_slice(&[(vocabulary - 2) as f32, 5.0, 17.0, 200.0, 3.0, 42.0, 11.0, 299.0, 64.0]);
    ids
}

/// Runs every component that the golden has outputs of.
fn matches_torch(bundle: &Arc<Bundle>, case: &str, bound: f64) {
    let golden: HashMap<String, Array> = npz(&data("checkpoints/files.npz"));
    let mut compared = 0;
    for entry in &bundle.header().components {
        let kind = entry.name;
        let prefix = format!("{case}.{kind}.");
        let mut component = Component::load(bundle, kind, &Resources::new(Threads::new(2))).unwrap();
        let vocabulary = entry.config["vocab_size"].as_u64().unwrap_or(0) as usize;
        let inputs = inputs(&component, kind, vocabulary);
        let outputs = component.run(&inputs).unwrap();
        for (name, expected) in golden.iter().filter_map(|(key, a)| Some((key.strip_prefix(&prefix)?, a))) {
            let output = outputs.iter().find(|output| output.name == name).expect(name);
            // Of texts the golden has the first tokens.
            let got = &output.values[..expected.values.len()];
            let error = relative_l2(got, &expected.values);
            println!("{case} {kind} {name}: {error:.1e}");
            assert!(error < bound, "{case} {kind} {name}: {error:e}");
            compared += 1;
        }
    }
    let there = golden.keys().filter(|key| key.starts_with(&format!("{case}."))).count();
    assert!(there > 0 && compared == there, "{case}: {compared} of {there} outputs were compared");
}

/// Writes a case as diffusers lays it out.
fn folder_of(case: &Value, root: &Path, dtype: Dtype) -> PathBuf {
    let component = case["folder"].as_str().unwrap();
    let name = match component {
        "unet" | "vae" => "diffusion_pytorch_model.safetensors",
        _ => "model.safetensors",
    };
    let folder = root.join(component);
    write(&folder.join(name), &tensors(case), dtype);
    std::fs::write(folder.join("config.json"), case["config"].to_string()).unwrap();
    std::fs::write(root.join("model_index.json"), "{}").unwrap();
    std::fs::create_dir_all(root.join("scheduler")).unwrap();
    std::fs::write(root.join("scheduler/scheduler_config.json"), SCHEDULER).unwrap();
    folder.join(name)
}

#[test]
fn folders_of_diffusers_compute_what_torch_does() {
    for (name, case) in cases().as_object().unwrap().iter().filter(|(_, case)| case["folder"].is_string()) {
        let root = tempfile::tempdir().unwrap();
        folder_of(case, root.path(), Dtype::F32);
        let (_keep, bundle) = open(root.path(), Precision::F32).unwrap();
        matches_torch(&bundle, name, 1e-5);
    }
}

#[test]
fn one_network_alone_is_imported_from_its_own_folder() {
    let cases = cases();
    for name in ["tiny", "vision", "inpainting"] {
        let root = tempfile::tempdir().unwrap();
        let file = folder_of(&cases[name], root.path(), Dtype::F32);
        let (_keep, bundle) = open(file.parent().unwrap(), Precision::F32).unwrap();
        matches_torch(&bundle, name, 1e-5);
    }
}

#[test]
fn numbers_of_16_bits_are_read_and_so_are_several_files() {
    let cases = cases();
    for (dtype, bound) in [(Dtype::F16, 2e-3), (Dtype::BF16, 2e-2)] {
        let root = tempfile::tempdir().unwrap();
        let file = folder_of(&cases["lcm"], root.path(), dtype);
        std::fs::rename(&file, file.with_file_name("diffusion_pytorch_model.fp16.safetensors")).unwrap();
        let (_keep, bundle) = open(root.path(), Precision::F32).unwrap();
        matches_torch(&bundle, "lcm", bound);
    }
    let root = tempfile::tempdir().unwrap();
    let file = folder_of(&cases["lcm"], root.path(), Dtype::F32);
    std::fs::remove_file(&file).unwrap();
    let tensors = tensors(&cases["lcm"]);
    let (first, second) = tensors.split_at(tensors.len() / 3);
    let mut map = serde_json::Map::new();
    for (shard, tensors) in [("1.safetensors", first), ("2.safetensors", second)] {
        write(&file.with_file_name(shard), tensors, Dtype::F32);
        map.extend(tensors.iter().map(|(name, ..)| (name.clone(), json!(shard))));
    }
    let index = file.with_file_name("diffusion_pytorch_model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let (_keep, bundle) = open(root.path(), Precision::F32).unwrap();
    matches_torch(&bundle, "lcm", 1e-5);
    map.insert("conv_in.bias".into(), json!("../1.safetensors"));
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let reason = open(root.path(), Precision::F32).unwrap_err();
    assert!(reason.contains("../1.safetensors"), "{reason}");
}

#[test]
fn single_files_in_the_original_names_compute_what_diffusers_makes_of_them() {
    let cases = cases();
    for (name, prediction, pads) in
        [("sd1", "epsilon", "end"), ("sd2", "v_prediction", "!"), ("xl", "epsilon", "end")]
    {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("model.safetensors");
        write(&file, &tensors(&cases[name]), Dtype::F32);
        let (_keep, bundle) = open(&file, Precision::F32).unwrap();
        matches_torch(&bundle, name, 1e-5);
        let pipeline = bundle.pipeline();
        assert_eq!(pipeline.scheduler["prediction_type"], prediction, "{name}");
        assert_eq!(pipeline.scheduler["steps_offset"], 1, "{name}");
        assert_eq!(pipeline.scaling_factor, if name == "xl" { 0.13025 } else { 0.18215 });
        let config = bundle.file("tokenizer/tokenizer_config.json").unwrap();
        assert!(String::from_utf8_lossy(config).contains(pads), "{name}");
        assert_eq!(bundle.file("tokenizer_2/vocab.json").is_some(), name == "xl");
        let request = Request::new(&bundle, Prompt::new("a red box").unwrap(), 1).unwrap();
        TextToImage::new(bundle, Resources::new(Threads::new(1))).check(&request).unwrap();
    }
}

#[test]
fn a_checkpoint_can_be_told_what_it_predicts() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("model.safetensors");
    write(&file, &tensors(&cases()["sd2"]), Dtype::F16);
    let target = root.path().join("model.tintype");
    let prediction = Some(import::Prediction::Epsilon);
    let options = import::Options { precision: Precision::F16, measure: false, prediction };
    import::import(&file, &target, options, &mut |_, _| ()).unwrap();
    let bundle = Bundle::open(&target).unwrap();
    assert_eq!(bundle.pipeline().scheduler["prediction_type"], "epsilon");
}

/// The weights of a bundle as torch would name and lay them out.
fn exported(bundle: &Bundle, kind: Kind) -> Vec<Named> {
    let entry = bundle.component(kind).unwrap();
    let tensors = entry.tensors.iter().filter(|tensor| !tensor.name().ends_with("frequencies"));
    tensors
        .map(|tensor| {
            let view = bundle.tensor(tensor);
            let Values::F32(values) = view.values else { panic!("{} is not f32", tensor.name()) };
            let shape = tensor.shape().to_vec();
            let (outputs, inputs) = (shape[0], shape[1..].iter().product());
            let values = match tensor.layout() {
                tintype::bundle::Layout::O8k4 => unpack_o8k4(values, outputs, inputs),
                tintype::bundle::Layout::Row => values.to_vec(),
            };
            let name = tensor.name().trim_start_matches("model.");
            let name = name.replace("layers.layers.", "layers.").replace("conv.conv.", "conv.");
            let name = name.replace("embeddings.weight", "embeddings.position_embedding.weight");
            let &[o, h, w, c] = &shape[..] else { return (name, shape, values) };
            let mut turned = Vec::with_capacity(values.len());
            for (o, channel) in (0..o).flat_map(|o| (0..c).map(move |channel| (o, channel))) {
                turned.extend((0..h * w).map(|tap| values[(o * h * w + tap) * c + channel]));
            }
            (name, vec![o, c, h, w], turned)
        })
        .collect()
}

/// The same weights from ONNX and from safetensors.
#[test]
fn folders_of_weights_are_the_same_as_their_onnx_graphs() {
    for name in ["sd15-opset14", "sd15-opset17-fixed", "sd21", "sdxl", "lcm", "bk-sdm-tiny", "taesd"] {
        let source = data("topologies").join(name);
        let (_keep, exact) = open(&source, Precision::F32).unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut files: HashMap<&str, Vec<Named>> = HashMap::new();
        for entry in &exact.header().components {
            let folder = match entry.name {
                Kind::VaeDecoder | Kind::VaeEncoder => "vae",
                other => other.name(),
            };
            files.entry(folder).or_default().extend(exported(&exact, entry.name));
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            let config = source.join(entry.name.name()).join("config.json");
            std::fs::copy(config, root.path().join(folder).join("config.json")).unwrap();
        }
        for (folder, tensors) in &files {
            write(&root.path().join(folder).join("model.safetensors"), tensors, Dtype::F32);
        }
        std::fs::write(root.path().join("model_index.json"), "{}").unwrap();
        std::fs::create_dir(root.path().join("scheduler")).unwrap();
        std::fs::write(root.path().join("scheduler/scheduler_config.json"), SCHEDULER).unwrap();
        for precision in [Precision::F32, Precision::Int8] {
            let (_keep, graphs) = open(&source, precision).unwrap();
            let (_keep, weights) = open(root.path(), precision).unwrap();
            assert_eq!(graphs.header().components.len(), weights.header().components.len(), "{name}");
            for entry in &graphs.header().components {
                alike(name, [&graphs, &weights], entry.name, &source, precision == Precision::F32);
            }
        }
    }
}

/// A component of two bundles on the inputs of its reference.
fn alike(name: &str, bundles: [&Arc<Bundle>; 2], kind: Kind, source: &Path, exact: bool) {
    let reference = npz(&source.join(kind.name()).join("reference.npz"));
    let inputs: Vec<NamedTensor> =
        reference.iter().map(|(name, a)| NamedTensor::new(name, &a.shape, a.values.clone())).collect();
    // Not in integers, where a last bit of a row may be a step of one.
    let resources = Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(2)) };
    let [graph, weights] =
        bundles.map(|bundle| Component::load(bundle, kind, &resources).unwrap().run(&inputs).unwrap());
    for output in &graph {
        let other = weights.iter().find(|other| other.name == output.name).expect(&output.name);
        assert_eq!(output.shape, other.shape);
        let error = relative_l2(&other.values, &output.values);
        println!("{name} {kind} {}: {error:e}", output.name);
        assert!(error < 1e-6, "{name} {kind} {}: {error:e}", output.name);
        if exact {
            let error = relative_l2(&other.values, &reference[&output.name].values);
            assert!(error < 1e-5, "{name} {kind} {} against torch: {error:e}", output.name);
        }
    }
}

/// What a folder with the network of a case is refused for, after `change` has been made to its tensors and configuration.
fn refused(case: &str, change: impl Fn(&mut Vec<Named>, &mut Value)) -> String {
    let mut case = cases()[case].clone();
    let root = tempfile::tempdir().unwrap();
    let mut tensors = tensors(&case);
    change(&mut tensors, &mut case["config"]);
    let path = folder_of(&case, root.path(), Dtype::F32);
    write(&path, &tensors, Dtype::F32);
    let reason = open(root.path(), Precision::F32).map(|_| ()).unwrap_err();
    println!("{reason}");
    assert!(!reason.is_empty());
    reason.replace(root.path().to_str().unwrap(), "")
}

fn position(tensors: &[Named], name: &str) -> usize {
    tensors.iter().position(|(other, ..)| other == name).unwrap()
}

#[test]
fn what_does_not_fit_is_refused_with_file_tensor_and_both_shapes() {
    const FILE: &str = "/unet/diffusion_pytorch_model.safetensors";
    let missing = refused("lcm", |tensors, _| {
        tensors.remove(position(tensors, "mid_block.resnets.1.conv2.weight"));
    });
    assert!(missing.contains(FILE) && missing.contains("`mid_block.resnets.1.conv2.weight`"), "{missing}");
    let shape = refused("lcm", |tensors, _| {
        let at = position(tensors, "conv_out.bias");
        tensors[at] = ("conv_out.bias".into(), vec![5], vec![0.0; 5]);
    });
    for part in [FILE, "`conv_out.bias`", "[5]", "[4]"] {
        assert!(shape.contains(part), "{part}: {shape}");
    }
    let stray = refused("lcm", |tensors, _| {
        tensors.push(("down_blocks.7.resnets.0.conv1.bias".into(), vec![1], vec![0.0]));
    });
    assert!(stray.contains(FILE) && stray.contains("`down_blocks.7.resnets.0.conv1.bias`"), "{stray}");
    let infinite = refused("lcm", |tensors, _| {
        let at = position(tensors, "conv_out.bias");
        tensors[at].2[1] = f32::NAN;
    });
    assert!(infinite.contains("`conv_out.bias`") && infinite.contains("finite"), "{infinite}");
}

#[test]
fn what_a_configuration_asks_for_and_nobody_builds_is_refused_by_name() {
    let cases: [(&str, &str, Value); 12] = [
        ("lcm", "act_fn", json!("gelu")),
        ("lcm", "resnet_time_scale_shift", json!("scale_shift")),
        ("lcm", "down_block_types", json!(["AttnDownBlock2D", "DownBlock2D"])),
        ("lcm", "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
        ("lcm", "a_key_of_the_future", json!("yes")),
        ("lcm", "encoder_hid_dim", json!(5)),
        ("lcm", "attention_head_dim", json!(3)),
        ("lcm", "block_out_channels", json!([])),
        ("lcm", "_class_name", json!("UNet3DConditionModel")),
        ("autoencoder", "_class_name", json!("AutoencoderDC")),
        ("tiny", "upsample_fn", json!("bilinear")),
        ("text", "hidden_act", json!("relu")),
    ];
    for (case, key, value) in cases {
        let reason = refused(case, |_, config| config[key] = value.clone());
        assert!(reason.contains("config.json") && reason.contains(&format!("`{key}`")), "{key}: {reason}");
    }
}

#[test]
fn files_that_are_no_safetensors_are_refused_with_their_cause() {
    let header = |json: &str, data: usize| {
        [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &vec![0; data]].concat()
    };
    let one = |offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), "fewer than 8 bytes"),
        ("a header beyond the end", vec![200, 0, 0, 0, 0, 0, 0, 0, b'{'], "longer than the file"),
        ("a header of exabytes", vec![255; 64], "100 MB"),
        ("no JSON", header("{]", 0), "no table of tensors"),
        ("cut short", header(&one("[0,8]"), 7), "copy it again"),
        ("more than it says", header(&one("[0,8]"), 9), "copy it again"),
        ("a gap", header(&one("[4,12]"), 12), "`a`"),
        ("another length", header(&one("[0,4]"), 4), "shape"),
        ("a pickle", [&b"PK\x03\x04\x00\x00\x08\x08"[..], &[0; 64]].concat(), "convert it to safetensors"),
    ];
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("model.safetensors");
    for (case, bytes, cause) in cases {
        std::fs::write(&file, bytes).unwrap();
        let reason = open(&file, Precision::F32).map(|_| ()).unwrap_err();
        assert!(reason.contains(cause) && reason.contains("model.safetensors"), "{case}: {reason}");
    }
    write(&file, &[("a".into(), vec![1], vec![0.0])], Dtype::F32);
    let reason = open(&file, Precision::F32).map(|_| ()).unwrap_err();
    assert!(reason.contains("Stable Diffusion 1, 2 or XL"), "{reason}");
    std::fs::create_dir(root.path().join("unet")).unwrap();
    std::fs::write(root.path().join("unet/diffusion_pytorch_model.bin"), "").unwrap();
    let reason = open(root.path(), Precision::F32).map(|_| ()).unwrap_err();
    assert!(reason.contains(".bin is a pickle") && reason.contains("convert"), "{reason}");
}

/// A small file with each byte of its header changed, and cut at each.
#[test]
fn damaged_files_are_refused_or_taken_but_never_crash() {
    let root = tempfile::tempdir().unwrap();
    let (_keep, bundle) = open(&data("tiny"), Precision::F32).unwrap();
    let file = root.path().join("lora.safetensors");
    let layer = "lora_unet_conv_in";
    let tensors = [
        (format!("{layer}.lora_down.weight"), vec![2, 4, 3, 3], vec![0.0; 72]),
        (format!("{layer}.lora_up.weight"), vec![8, 2, 1, 1], vec![0.0; 16]),
        (format!("{layer}.alpha"), vec![], vec![1.0]),
    ];
    write(&file, &tensors, Dtype::F16);
    let read = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        Lora::open(&file, 1.0).and_then(|lora| lora::adapters(&bundle, &[lora])).map(|_| ())
    };
    let whole = std::fs::read(&file).unwrap();
    read(&whole).unwrap();
    for at in 0..whole.len() - 178 {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            // Some changes leave it as good as before, such as one of a space.
            let _taken_or_refused = read(&damaged);
        }
        read(&whole[..at]).unwrap_err();
    }
}
