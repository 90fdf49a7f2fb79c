//! LoRA, decoders of other models, and models with two text encoders, against diffusers.
//!
//! `tests/data/README.md` says how the references were made.

#[path = "checkpoint/file.rs"]
mod file;
mod fixture;
#[path = "checkpoint/formula.rs"]
mod formula;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use file::{Named, write};
use fixture::{Array, data, npz, relative_l2};
use safetensors::tensor::Dtype;
use serde_json::Value;
use tintype::bundle::Bundle;
use tintype::denoise::guidance::GuidanceScale;
use tintype::engine::{Resources, Threads};
use tintype::import::{self, Precision};
use tintype::kernels::Arithmetic;
use tintype::lora::{self, Lora};
use tintype::pipeline::{Image, Request, Size, TextToImage};
use tintype::text::Prompt;

fn golden() -> (Value, HashMap<String, Array>) {
    (file::golden(&data("checkpoints/drawn.json.gz")), npz(&data("checkpoints/drawn.npz")))
}

fn shape_of(entry: &Value) -> Vec<usize> {
    serde_json::from_value(entry.clone()).unwrap()
}

/// The tensors of a LoRA: a number is an alpha, a shape a matrix.
fn lora_tensors(case: &Value) -> Vec<Named> {
    let tensor = |entry: &Value| {
        let name = entry[0].as_str().unwrap().to_owned();
        if let Some(alpha) = entry[1].as_f64() {
            return (name, vec![], vec![alpha as f32]);
        }
        let shape = shape_of(&entry[1]);
        let values = formula::weight(&name, &shape).iter().map(|x| x * 0.5).collect();
        (name, shape, values)
    };
    case["tensors"].as_array().unwrap().iter().map(tensor).collect()
}

fn weights(tensors: &Value) -> Vec<Named> {
    let tensor = |entry: &Value| {
        let (name, shape) = (entry[0].as_str().unwrap().to_owned(), shape_of(&entry[1]));
        let values = formula::weight(&name, &shape);
        (name, shape, values)
    };
    tensors.as_array().unwrap().iter().map(tensor).collect()
}

fn imported(source: &Path, folder: &Path, precision: Precision) -> Arc<Bundle> {
    let target = folder.join("model.tintype");
    import::import(source, &target, precision, &mut |_, _| ()).unwrap();
    Arc::new(Bundle::open(&target).unwrap())
}

/// The folder of diffusers with two text encoders, weights and all.
fn xl(root: &Path) -> PathBuf {
    let source = root.join("xl");
    let copy = Command::new("cp").arg("-r").arg(data("checkpoints/xl")).arg(&source).status().unwrap();
    assert!(copy.success());
    for (name, tensors) in golden().0["xl"]["files"].as_object().unwrap() {
        write(&source.join(name), &weights(tensors), Dtype::F32);
    }
    source
}

fn request(bundle: &Bundle, run: &Value) -> Request {
    let text = |key: &str| Prompt::new(run[key].as_str().unwrap()).unwrap();
    let number = |key: &str| run[key].as_u64().unwrap() as usize;
    let mut request = Request::new(bundle, text("prompt"), run["seed"].as_u64().unwrap()).unwrap();
    request.negative = text("negative");
    request.steps = number("steps");
    request.guidance_scale = GuidanceScale::new(run["guidance"].as_f64().unwrap() as f32).unwrap();
    request.size = Size { width_px: number("width"), height_px: number("height") };
    request
}

fn resources(threads: usize) -> Resources {
    Resources { arithmetic: Arithmetic::F32, ..Resources::new(Threads::new(threads)) }
}

fn with_loras(bundle: &Bundle, loras: &[Lora], threads: usize) -> Resources {
    Resources { adapters: Arc::new(lora::adapters(bundle, loras).unwrap()), ..resources(threads) }
}

fn draw(bundle: &Arc<Bundle>, run: &Value, resources: Resources) -> Image {
    let request = request(bundle, run);
    TextToImage::new(bundle.clone(), resources).run(&request, &mut ()).unwrap().remove(0)
}

fn furthest(image: &Image, pixels: &Array) -> i32 {
    let pairs = image.pixels.pixels().iter().zip(&pixels.values);
    pairs.map(|(&a, &b)| (i32::from(a) - b as i32).abs()).max().unwrap()
}

#[test]
fn loras_of_all_writers_draw_what_diffusers_draws_with_them() {
    let (golden, arrays) = golden();
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&data("tiny"), folder.path(), Precision::F32);
    for (name, case) in golden["loras"].as_object().unwrap() {
        let path = folder.path().join("lora.safetensors");
        write(&path, &lora_tensors(case), Dtype::F32);
        let lora = Lora::open(&path, case["strength"].as_f64().unwrap() as f32).unwrap();
        let plain = draw(&bundle, &case["run"], resources(2));
        let image = draw(&bundle, &case["run"], with_loras(&bundle, &[lora], 2));
        let expected = &arrays[&format!("{name}.latents")].values;
        let error = relative_l2(image.latents.values(), expected);
        let without = relative_l2(plain.latents.values(), expected);
        println!("{name}: {error:.1e}, without it {without:.1e}");
        assert!(error < 1e-4, "{name}: {error:e}");
        assert!(without > 1e-2, "{name} changes the picture by {without:e} alone");
    }
}

#[test]
fn a_lora_goes_on_int8_weights_and_threads_do_not_change_a_bit() {
    let (golden, _) = golden();
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&data("tiny"), folder.path(), Precision::Int8);
    let case = &golden["loras"]["locon"];
    let path = folder.path().join("lora.safetensors");
    write(&path, &lora_tensors(case), Dtype::F16);
    let loras = [Lora::open(&path, 1.0).unwrap()];
    let one = draw(&bundle, &case["run"], with_loras(&bundle, &loras, 1));
    let three = draw(&bundle, &case["run"], with_loras(&bundle, &loras, 3));
    assert_eq!(one.latents, three.latents);
    let nothing = [Lora::open(&path, 0.0).unwrap()];
    let plain = draw(&bundle, &case["run"], resources(2));
    assert_eq!(plain.latents, draw(&bundle, &case["run"], with_loras(&bundle, &nothing, 2)).latents);
    assert_ne!(plain.latents, one.latents);
}

#[test]
fn two_loras_add_up() {
    let (golden, _) = golden();
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&data("tiny"), folder.path(), Precision::F32);
    let case = &golden["loras"]["peft"];
    let path = folder.path().join("lora.safetensors");
    write(&path, &lora_tensors(case), Dtype::F32);
    let with = |strengths: &[f32]| {
        let loras: Vec<Lora> = strengths.iter().map(|&s| Lora::open(&path, s).unwrap()).collect();
        draw(&bundle, &case["run"], with_loras(&bundle, &loras, 1)).latents
    };
    let error = relative_l2(with(&[0.25, 0.5]).values(), with(&[0.75]).values());
    assert!(error < 1e-5, "{error:e}");
}

#[test]
fn layers_are_found_by_the_originals_names_too() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&xl(folder.path()), folder.path(), Precision::F32);
    let run = &golden().0["xl"]["runs"][0];
    // By the numbering of the original: one residual block a level, and what halves the map behind it.
    let names = [
        ("down_blocks_1_attentions_0_proj_in", "input_blocks_3_1_proj_in", 16, 16),
        ("mid_block_attentions_0_proj_out", "middle_block_1_proj_out", 16, 16),
        (
            "up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_k",
            "output_blocks_3_1_transformer_blocks_0_attn1_to_k",
            16,
            16,
        ),
        ("add_embedding_linear_1", "label_emb_0_0", 72, 32),
    ];
    let drawn = |which: fn(&(&'static str, &'static str, usize, usize)) -> &'static str| {
        let path = folder.path().join("lora.safetensors");
        let tensors = names.iter().enumerate().flat_map(|(at, layer)| {
            let (from, to) = (layer.2, layer.3);
            [("down", vec![2, from]), ("up", vec![to, 2])].map(|(matrix, shape)| {
                let values = formula::weight(&format!("{at}.{matrix}"), &shape);
                (format!("lora_unet_{}.lora_{matrix}.weight", which(layer)), shape, values)
            })
        });
        write(&path, &tensors.collect::<Vec<_>>(), Dtype::F32);
        draw(&bundle, run, with_loras(&bundle, &[Lora::open(&path, 1.0).unwrap()], 2)).latents
    };
    let ours = drawn(|layer| layer.0);
    assert_eq!(ours, drawn(|layer| layer.1));
    assert_ne!(ours, draw(&bundle, run, resources(2)).latents);
}

#[test]
fn loras_that_do_not_fit_are_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&data("tiny"), folder.path(), Precision::F32);
    let case = &golden().0["loras"]["kohya"];
    let key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    let refused = |change: &dyn Fn(&mut Vec<Named>)| {
        let mut tensors = lora_tensors(case);
        change(&mut tensors);
        let path = folder.path().join("lora.safetensors");
        write(&path, &tensors, Dtype::F32);
        let error = Lora::open(&path, 1.0).and_then(|lora| lora::adapters(&bundle, &[lora])).unwrap_err();
        assert!(error.to_string().contains("lora.safetensors"), "{error}");
        error.to_string()
    };
    let at = |tensors: &[Named], suffix: &str| {
        tensors.iter().position(|(name, ..)| *name == format!("{key}{suffix}")).unwrap()
    };
    let missing = refused(&|tensors| drop(tensors.remove(at(tensors, ".lora_up.weight"))));
    assert!(missing.contains(&format!("{key}.lora_down.weight")) && missing.contains("up"), "{missing}");
    let rank = refused(&|tensors| {
        let at = at(tensors, ".lora_up.weight");
        (tensors[at].1, tensors[at].2) = (vec![16, 2], vec![0.0; 32]);
    });
    assert!(rank.contains(key) && rank.contains("[16, 2]") && rank.contains("[16, 3]"), "{rank}");
    let width = refused(&|tensors| {
        let at = at(tensors, ".lora_down.weight");
        (tensors[at].1, tensors[at].2) = (vec![3, 320], vec![0.0; 960]);
    });
    assert!(width.contains(key) && width.contains("[3, 320]") && width.contains("[3, 16]"), "{width}");
    let other = refused(&|tensors| {
        let name = "lora_unet_down_blocks_9_attentions_0_proj_in";
        tensors.push((format!("{name}.lora_down.weight"), vec![1, 4], vec![0.0; 4]));
        tensors.push((format!("{name}.lora_up.weight"), vec![4, 1], vec![0.0; 4]));
    });
    assert!(other.contains("another model") && other.contains("down_blocks_9"), "{other}");
    let second = refused(&|tensors| {
        let name = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj";
        tensors.push((format!("{name}.lora_down.weight"), vec![1, 4], vec![0.0; 4]));
        tensors.push((format!("{name}.lora_up.weight"), vec![4, 1], vec![0.0; 4]));
    });
    assert!(second.contains("text_encoder_2"), "{second}");
    for unknown in ["lora_unet_x.hada_w1_a", "lora_unet_x.dora_scale", "something.weight"] {
        let reason = refused(&|tensors| tensors.push((unknown.into(), vec![1], vec![0.0])));
        assert!(reason.contains(unknown), "{reason}");
    }
    let path = folder.path().join("lora.safetensors");
    assert!(Lora::open(&path, f32::NAN).unwrap_err().to_string().contains("out of range"));
    assert!(Lora::open(&data("tiny/unet/model.onnx"), 1.0).is_err());
}

#[test]
fn a_tiny_autoencoder_decodes_in_place_of_the_models_own() {
    let (golden, arrays) = golden();
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&data("tiny"), folder.path(), Precision::F32);
    let case = &golden["taesd"];
    let source = folder.path().join("taesd");
    write(&source.join("diffusion_pytorch_model.safetensors"), &weights(&case["tensors"]), Dtype::F32);
    std::fs::write(source.join("config.json"), case["config"].to_string()).unwrap();
    let decoder = imported(&source, &source, Precision::F32);
    let mut pipeline = TextToImage::new(bundle.clone(), resources(2)).with_decoder(decoder).unwrap();
    let image = pipeline.run(&request(&bundle, &case["run"]), &mut ()).unwrap().remove(0);
    let off = furthest(&image, &arrays["taesd.pixels"]);
    assert!(off <= 1, "pixels are off by {off}");
    // Four levels make cells of eight pixels, where the model has four.
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = imported(&data("topologies/taesd"), &other, Precision::F32);
    let error = TextToImage::new(bundle.clone(), resources(1)).with_decoder(other).err().unwrap().to_string();
    assert!(error.contains('8') && error.contains('4'), "{error}");
}

#[test]
fn a_model_with_two_text_encoders_draws_what_diffusers_draws() {
    let (golden, arrays) = golden();
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&xl(folder.path()), folder.path(), Precision::F32);
    assert_eq!(bundle.pipeline().kind, "stable-diffusion-xl");
    assert_eq!(bundle.pipeline().sampler, "euler");
    for (at, run) in golden["xl"]["runs"].as_array().unwrap().iter().enumerate() {
        let image = draw(&bundle, run, resources(2));
        let error = relative_l2(image.latents.values(), &arrays[&format!("xl.latents.{at}")].values);
        let off = furthest(&image, &arrays[&format!("xl.pixels.{at}")]);
        println!("{at}: latents {error:.1e}, pixels {off}");
        assert!(error < 1e-4, "{at}: {error:e}");
        assert!(off <= 1, "{at}: pixels are off by {off}");
    }
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tintype"));
    command
        .current_dir(folder)
        .args(args)
        .env_remove("TINTYPE_MODEL")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

#[test]
fn the_program_adds_what_it_is_told_and_says_so_in_the_picture() {
    let (golden, _) = golden();
    let folder = tempfile::tempdir().unwrap();
    imported(&data("tiny"), folder.path(), Precision::Int8);
    let lora = lora_tensors(&golden["loras"]["kohya"]);
    write(&folder.path().join("a.safetensors"), &lora, Dtype::F16);
    let taesd = folder.path().join("taesd");
    write(
        &taesd.join("diffusion_pytorch_model.safetensors"),
        &weights(&golden["taesd"]["tensors"]),
        Dtype::F32,
    );
    std::fs::write(taesd.join("config.json"), golden["taesd"]["config"].to_string()).unwrap();
    let common =
        ["generate", "x", "--model", "model.tintype", "--steps", "1", "--width", "16", "--height", "16"];
    let more = ["--lora", "a.safetensors:0.5", "--lora", "a.safetensors", "--vae", "taesd", "-o", "out.png"];
    let output = run(folder.path(), &[&common[..], &more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let png = std::fs::read(folder.path().join("out.png")).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let texts = &reader.info().utf8_text;
    let texts: Vec<String> = texts.iter().map(|text| text.get_text().unwrap()).collect();
    let texts =
        [texts, reader.info().uncompressed_latin1_text.iter().map(|text| text.text.clone()).collect()]
            .concat();
    let manifest: Value = texts.iter().find_map(|text| serde_json::from_str(text).ok()).unwrap();
    assert_eq!(manifest["loras"][0]["name"], "a.safetensors");
    assert_eq!(manifest["loras"][0]["strength"], 0.5);
    assert_eq!(manifest["loras"][1]["strength"], 1.0);
    let hash = &blake3::hash(&std::fs::read(folder.path().join("a.safetensors")).unwrap()).to_hex()[..16];
    assert_eq!(manifest["loras"][0]["hash"], hash);
    assert_eq!(manifest["vae"]["model"], "taesd");
    for (flags, code, cause) in [
        (["--lora", "none.safetensors"], 3, "none.safetensors"),
        (["--lora", "model.tintype"], 3, "model.tintype"),
        (["--lora", "taesd/diffusion_pytorch_model.safetensors"], 2, "no part of a LoRA"),
        (["--lora", "a.safetensors:1000"], 2, "out of range"),
        (["--vae", "none.tintype"], 3, "none.tintype"),
        (["--vae", "taesd/config.json"], 3, "config.json"),
    ] {
        let output = run(folder.path(), &[&common[..], &flags, &["-o", "none.png"]].concat());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {message}");
        assert!(message.contains(cause), "{flags:?}: {message}");
    }
    assert!(!folder.path().join("none.png").exists());
    let output =
        run(folder.path(), &["import", "taesd", "-o", "taesd.tintype", "--prediction-type", "v_prediction"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(folder.path(), &[&common[..], &["--vae", "taesd.tintype", "-o", "other.png"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
