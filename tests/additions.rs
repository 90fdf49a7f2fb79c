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
use tintype::bundle::{Bundle, Component, PipelineKind};
use tintype::denoise::guidance::GuidanceScale;
use tintype::engine::{self, EngineError, NamedTensor, Resources, Threads};
use tintype::import::{self, Precision};
use tintype::kernels::{Arithmetic, Level};
use tintype::lora::{self, Lora};
use tintype::pipeline::{Additions, Image, Manifest, Request, Size, TextToImage, encode_state};
use tintype::tensor::Latents;
use tintype::text::encoder::TextEncoder;
use tintype::text::tokenizer::{Tokenizer, TokenizerFiles};
use tintype::text::{Prompt, Syntax};

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
    assert_eq!(bundle.pipeline().kind, PipelineKind::StableDiffusionXl);
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

const ENCODERS: [Component; 2] = [Component::TextEncoder, Component::TextEncoder2];

#[test]
fn two_text_encoders_read_weighted_and_long_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&xl(folder.path()), folder.path(), Precision::F32);
    let prompt = |text: &str| Prompt::new(text).unwrap();
    for kind in ENCODERS {
        let mut encoder = TextEncoder::load_one(&bundle, kind, &resources(2)).unwrap();
        let mut encode = |text: &str| {
            let chunks = encoder.chunks(&prompt(text), Syntax::A1111).unwrap();
            encoder.encode(&chunks, 1).unwrap()
        };
        let [both, first, second] = ["a red hat BREAK blue", "a red hat", "blue"].map(&mut encode);
        assert_eq!(both.values(), [first.values(), second.values()].concat());
        assert_eq!(both.pooled(), first.pooled());
        // The first encoder of the two has none.
        assert_eq!(both.pooled() == second.pooled(), kind == Component::TextEncoder);
        let weighted = encode("a (red:1.5) hat");
        assert_ne!(weighted.values(), first.values());
        assert_eq!(weighted.pooled(), first.pooled(), "weights do not reach the pooled embedding");
    }
    let run = &golden().0["xl"]["runs"][0];
    let plain = request(&bundle, run);
    let draw = |text: &str, negative: &str, syntax| {
        let request = Request { prompt: prompt(text), negative: prompt(negative), syntax, ..plain.clone() };
        TextToImage::new(bundle.clone(), resources(2)).run(&request, &mut ()).unwrap().remove(0).latents
    };
    for negative in ["", "blur"] {
        let [one, two] = [Syntax::Plain, Syntax::A1111].map(|syntax| draw("a red hat", negative, syntax));
        assert_eq!(one, two);
        assert_ne!(one, draw("a red hat BREAK blue", negative, Syntax::A1111));
    }
}

#[test]
fn clip_skip_takes_earlier_states_of_both_text_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = imported(&xl(folder.path()), folder.path(), Precision::F32);
    for (kind, tokenizer) in ENCODERS.into_iter().zip(["tokenizer", "tokenizer_2"]) {
        let load = || TextEncoder::load_one(&bundle, kind, &resources(2)).unwrap();
        let config = &bundle.component(kind).unwrap().config;
        let number = |key: &str| config[key].as_u64().unwrap() as usize;
        let (layers, context) = (number("num_hidden_layers"), number("max_position_embeddings"));
        let file = |name: &str| bundle.file(&format!("{tokenizer}/{name}"));
        let files = TokenizerFiles {
            vocab: file("vocab.json").unwrap(),
            merges: file("merges.txt").unwrap(),
            config: file("tokenizer_config.json").unwrap(),
            special_tokens_map: file("special_tokens_map.json"),
        };
        let prompt = Prompt::new("a red hat").unwrap();
        let ids = Tokenizer::from_files(files, context).unwrap().encode(&prompt).unwrap().ids;
        let ids = ids.iter().map(|&id| id as f32).collect();
        let input = NamedTensor::new("input_ids", &[1, context], ids);
        let mut network = engine::Component::load(&bundle, kind, &resources(2)).unwrap();
        let chunks = load().chunks(&prompt, Syntax::Plain).unwrap();
        let whole = load().encode(&chunks, 1).unwrap();
        for skipped in 0..layers {
            // diffusers takes `hidden_states[-(clip_skip + 2)]`; the list begins with the embedding of the tokens.
            let name = format!("hidden_states.{}", layers + 1 - (skipped + 2));
            let expected = network.run_for(&name, std::slice::from_ref(&input)).unwrap();
            let mut encoder = load().without_last_layers(skipped).unwrap();
            let embedding = encoder.encode(&chunks, 1).unwrap();
            assert_eq!(embedding.values(), expected.values, "{kind} without {skipped}");
            assert_eq!(embedding.pooled(), whole.pooled());
        }
        let refused = load().without_last_layers(layers).err().unwrap();
        assert!(
            matches!(refused, EngineError::Layers { wanted, got, .. } if wanted == layers && got == layers - 1)
        );
    }
    let run = &golden().0["xl"]["runs"][0];
    let skipping = Request { clip_skip: 1, ..request(&bundle, run) };
    let skipped = TextToImage::new(bundle.clone(), resources(2)).run(&skipping, &mut ()).unwrap().remove(0);
    assert_ne!(skipped.latents, draw(&bundle, run, resources(2)).latents);
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
    let folder = tempfile::tempdir().unwrap();
    workshop(folder.path());
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

/// A model, a LoRA `a.safetensors`, another `b.safetensors`, and a decoder `taesd`.
fn workshop(folder: &Path) -> Arc<Bundle> {
    let (golden, _) = golden();
    for (name, case) in [("a", "kohya"), ("b", "peft")] {
        let path = folder.join(format!("{name}.safetensors"));
        write(&path, &lora_tensors(&golden["loras"][case]), Dtype::F16);
    }
    let taesd = folder.join("taesd");
    let tensors = weights(&golden["taesd"]["tensors"]);
    write(&taesd.join("diffusion_pytorch_model.safetensors"), &tensors, Dtype::F32);
    std::fs::write(taesd.join("config.json"), golden["taesd"]["config"].to_string()).unwrap();
    imported(&data("tiny"), folder, Precision::Int8)
}

fn refused(output: &Output, causes: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(causes.iter().all(|cause| message.contains(cause)), "{causes:?}: {message}");
}

#[test]
fn a_picture_is_drawn_again_with_what_was_added() {
    let folder = tempfile::tempdir().unwrap();
    workshop(folder.path());
    let run = |args: &[&[&str]]| run(folder.path(), &args.concat());
    let common =
        ["generate", "x", "--model", "model.tintype", "--steps", "2", "--width", "16", "--height", "16"];
    let added = ["--lora", "a.safetensors:0.5", "--lora", "b.safetensors:-1", "--lora", "a.safetensors"];
    let drawn = run(&[&common, &added, &["--vae", "taesd", "-n", "2", "--seed", "3"]]);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let hash = |name: &str| {
        blake3::hash(&std::fs::read(folder.path().join(name)).unwrap()).to_hex()[..16].to_owned()
    };
    let loras = ["--lora", "b.safetensors", "--lora", "a.safetensors"];
    for picture in ["out-1.png", "out-2.png"] {
        let replay =
            |more: &[&str]| run(&[&["replay", picture, "--check", "--model", "model.tintype"], more]);
        refused(&replay(&[]), &["a.safetensors", &hash("a.safetensors"), "--lora"]);
        let one = replay(&["--lora", "a.safetensors", "--vae", "taesd"]);
        refused(&one, &["b.safetensors", &hash("b.safetensors"), "--lora"]);
        refused(&replay(&loras), &["taesd", "--vae"]);
        refused(&replay(&[&loras[..], &["--vae", "model.tintype"]].concat()), &["taesd", "--vae"]);
        let again = replay(&[&loras[..], &["--vae", "taesd"]].concat());
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(String::from_utf8_lossy(&again.stdout).contains("identical"));
    }
    let args = ["replay", "out-1.png", "--model", "model.tintype", "-o", "again.png", "--vae", "taesd"];
    assert!(run(&[&args, &loras]).status.success());
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("again.png"), bytes("out-1.png"), "also in what it says of itself");
}

#[test]
fn a_state_is_one_of_what_was_added() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = workshop(folder.path());
    let mut request = Request::new(&bundle, Prompt::new("x").unwrap(), 3).unwrap();
    (request.size, request.steps) = (Size { width_px: 16, height_px: 16 }, 4);
    let decoder = imported(&folder.path().join("taesd"), &folder.path().join("taesd"), Precision::F16);
    let lora = Lora::open(&folder.path().join("a.safetensors"), 0.5).unwrap();
    let additions = Additions { loras: vec![lora], decoder: Some(decoder) };
    let identity =
        Manifest::of_request(&request, &bundle, &additions, Level::detect().arithmetic()).to_json();
    let latents = Latents::new(vec![0.1; 64], 4, 4, 4).unwrap();
    let state = folder.path().join("state");
    let resume = |more: &[&str]| {
        std::fs::write(&state, encode_state(&identity, 1, &latents, &[])).unwrap();
        let common = ["generate", "x", "--model", "model.tintype", "--steps", "4", "--width", "16"];
        let common = [&common[..], &["--height", "16", "--checkpoint", "state"]].concat();
        run(folder.path(), &[&common[..], more].concat())
    };
    let vae = ["--vae", "taesd/model.tintype"];
    refused(&resume(&vae), &["state", "loras is", "none here"]);
    refused(&resume(&[&vae[..], &["--lora", "b.safetensors:0.5"]].concat()), &["loras is"]);
    refused(&resume(&[&vae[..], &["--lora", "a.safetensors"]].concat()), &["loras is"]);
    refused(&resume(&["--lora", "a.safetensors:0.5"]), &["vae is", "none here"]);
    assert!(!folder.path().join("out.png").exists());
    let resumed = resume(&[&vae[..], &["--lora", "a.safetensors:0.5"]].concat());
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
}

#[test]
fn previews_have_the_colours_of_another_decoder() {
    let folder = tempfile::tempdir().unwrap();
    workshop(folder.path());
    let common =
        ["generate", "x", "--model", "model.tintype", "--steps", "2", "--width", "16", "--height", "16"];
    let preview = |more: &[&str]| {
        let output =
            run(folder.path(), &[&common[..], &["--seed", "3", "--preview", "p.png"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(folder.path().join("p.png")).unwrap()
    };
    assert_ne!(preview(&[]), preview(&["--vae", "taesd"]));
}
