//! The contract of the bundle: `docs/format.md`, held against files that are put together here by hand.

use std::{error::Error, fs, path::Path, process::Command};

use half::f16;
use serde_json::{Value, json};
use tintype::bundle::{
    Blob, Bundle, BundleWriter, Component, ComponentEntry, Dtype, FileEntry, Header, Layout, Licence,
    Pipeline, Scales, TensorEntry, Values, WriteError,
};

// ---------------------------------------------------------------------------------------------------
// A bundle by hand: every offset and length below was worked out from the format's description.

const FILE_LEN: usize = 196_620;

const VOCAB: &[u8] = b"{\"a\":0}";
const UNET_GRAPH: &[u8] = b"unet graph";
const TEXT_GRAPH: &[u8] = b"text graph";

const CONV_SCALES: [f32; 8] = [0.5, -0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
const MID_SCALES: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, f32::MIN_POSITIVE];
const BIAS: [f32; 9] = [0.1, -0.2, 0.3, f32::MAX, f32::MIN, -0.0, 7.0, 8.0, 9.0];

fn i8s(len: usize) -> Vec<i8> {
    (0..len).map(|i| (i * 37 % 256) as u8 as i8).collect()
}

fn f16s(len: usize) -> Vec<f16> {
    (0..len).map(|i| f16::from_f32(i as f32 / 8.0 - 3.0)).collect()
}

fn le<T: Copy, const N: usize>(numbers: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| bytes(number)).collect()
}

/// Values, zeros to `scales_offset`, scales.
fn i8_blob(values: &[i8], scales_offset: usize, scales: &[f32]) -> Vec<u8> {
    let mut blob = le(values, i8::to_le_bytes);
    blob.resize(scales_offset, 0);
    blob.extend(le(scales, f32::to_le_bytes));
    blob
}

/// Offset and contents of every blob, in the order of the file.
fn blobs() -> Vec<(usize, Vec<u8>)> {
    vec![
        (65_536, VOCAB.to_vec()),
        (65_600, Vec::new()),
        (65_600, UNET_GRAPH.to_vec()),
        (65_664, TEXT_GRAPH.to_vec()),
        (131_072, i8_blob(&i8s(64), 64, &CONV_SCALES)),
        (131_200, i8_blob(&i8s(99), 128, &MID_SCALES)),
        (131_392, le(&f16s(128), f16::to_le_bytes)),
        (131_648, le(&BIAS, f32::to_le_bytes)),
        (196_608, le(&f16s(6), f16::to_le_bytes)),
    ]
}

fn pipeline_json() -> Value {
    json!({
        "kind": "stable-diffusion",
        "name": "sample",
        "scheduler": { "_class_name": "DDIMScheduler", "beta_start": 0.000_85, "trained_betas": null },
        "scaling_factor": 0.18215,
        "shift_factor": 0.0,
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "default_width_px": 128,
        "default_height_px": 64,
        "default_steps": 8,
        "default_guidance": 3.5,
        "sampler": "ddim",
        "provenance": { "made_by": "tests/bundle.rs" },
    })
}

/// The header of [`blobs`], hashes included.
fn header_json(blobs: &[(usize, Vec<u8>)]) -> Value {
    let blob = |index: usize| {
        let (offset, bytes) = &blobs[index];
        json!({ "offset": offset, "len": bytes.len(), "blake3": blake3::hash(bytes).to_hex().as_str() })
    };
    json!({
        "pipeline": pipeline_json(),
        "licences": [{ "name": "weights", "spdx": "MIT", "notice": "Copyright: none" }],
        "files": [
            { "name": "tokenizer/vocab.json", "blob": blob(0) },
            { "name": "tokenizer/merges.txt", "blob": blob(1) },
        ],
        "components": [
            {
                "name": "unet",
                "config": { "sample_size": 16, "act_fn": "silu" },
                "graph": blob(2),
                "tensors": [
                    { "name": "conv.weight", "dtype": "i8", "shape": [2, 1, 1, 5], "layout": "o8k4",
                      "scales": "channel", "blob": blob(4) },
                    { "name": "mid.weight", "dtype": "i8", "shape": [3, 33], "layout": "row",
                      "scales": "block32", "blob": blob(5) },
                    { "name": "out.weight", "dtype": "f16", "shape": [9, 5], "layout": "o8k4",
                      "blob": blob(6) },
                    { "name": "out.bias", "dtype": "f32", "shape": [9], "layout": "row",
                      "blob": blob(7) },
                ],
            },
            {
                "name": "text_encoder",
                "config": {},
                "graph": blob(3),
                "tensors": [
                    { "name": "embedding", "dtype": "f16", "shape": [3, 2], "layout": "row",
                      "blob": blob(8) },
                ],
            },
        ],
    })
}

/// Preamble, header and padding up to the first section, for any JSON text.
fn region(json: &[u8]) -> Vec<u8> {
    let data_start = (56 + json.len()).next_multiple_of(65_536);
    let mut header = json.to_vec();
    header.resize(data_start - 56, b' ');
    let mut region = b"\x89TINTYPE\x01\0\0\0\0\0\0\0".to_vec();
    region.extend(((data_start - 56) as u64).to_le_bytes());
    region.extend(blake3::hash(&header).as_bytes());
    region.extend(header);
    region
}

fn assemble(header: &Value, blobs: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut file = region(header.to_string().as_bytes());
    for (offset, bytes) in blobs {
        file.resize(*offset, 0);
        file.extend(bytes);
    }
    file
}

fn sample() -> Vec<u8> {
    let blobs = blobs();
    assemble(&header_json(&blobs), &blobs)
}

/// Writes `bytes` to a file of its own; the folder goes with the returned guard.
fn on_disk(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.tintype");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The error and its causes, as the command line prints them.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn refusal(file: &[u8]) -> String {
    chain(&Header::parse(file).unwrap_err())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

// ---------------------------------------------------------------------------------------------------
// Reading

#[test]
fn everything_is_read_where_it_lies() {
    let (_folder, path) = on_disk(&sample());
    let bundle = Bundle::open(&path).unwrap();
    bundle.verify().unwrap();

    assert_eq!(bundle.pipeline().scaling_factor, 0.18215);
    assert_eq!(bundle.pipeline().scheduler, pipeline_json()["scheduler"]);
    assert_eq!(bundle.header().licences[0].spdx, "MIT");
    assert_eq!(bundle.file("tokenizer/vocab.json"), Some(VOCAB));
    assert_eq!(bundle.file("tokenizer/merges.txt"), Some(&[][..]));
    assert_eq!(bundle.file("vocab.json"), None);
    assert!(bundle.component(Component::Prior).is_none());

    let unet = bundle.component(Component::Unet).unwrap();
    assert_eq!(unet.config["sample_size"], 16);
    assert_eq!(bundle.graph(unet), UNET_GRAPH);
    assert!(unet.tensor("embedding").is_none());

    let conv = bundle.tensor(unet.tensor("conv.weight").unwrap());
    assert_eq!((conv.shape, conv.layout), (&[2, 1, 1, 5][..], Layout::O8k4));
    assert_eq!(conv.values, Values::I8 { values: &i8s(64), scales: &CONV_SCALES });
    let mid = bundle.tensor(unet.tensor("mid.weight").unwrap());
    assert_eq!(mid.values, Values::I8 { values: &i8s(99), scales: &MID_SCALES });
    let out = bundle.tensor(unet.tensor("out.weight").unwrap());
    assert_eq!(out.values, Values::F16(&f16s(128)));
    let bias = bundle.tensor(unet.tensor("out.bias").unwrap());
    assert_eq!(bias.values, Values::F32(&BIAS));
    let Values::F32(values) = bias.values else { unreachable!() };
    assert_eq!(values.as_ptr().addr() % 64, 0);

    let text = bundle.component(Component::TextEncoder).unwrap();
    assert_eq!(bundle.graph(text), TEXT_GRAPH);
    let embedding = bundle.tensor(text.tensor("embedding").unwrap());
    assert_eq!(embedding.values, Values::F16(&f16s(6)));
}

/// In the order of the source, and exact: a quick reading of these decimals is off by one in the last
/// digit.
#[test]
fn configs_keep_every_number_and_their_order() {
    let config =
        r#"{"z":31.245270191439438,"a":121.48791951161945,"n":null,"m":[0.00001,-0.0,18446744073709551615]}"#;
    let (blobs, folder) = (blobs(), tempfile::tempdir().unwrap());
    let mut header = header_json(&blobs);
    header["components"][1]["config"] = Value::Null;
    let text = header.to_string().replace("\"config\":null", &format!("\"config\":{config}"));
    let header = Header::from_json(text.as_bytes(), FILE_LEN as u64).unwrap();
    let path = folder.path().join("sample.tintype");
    write(&path, header).unwrap();
    let written = String::from_utf8(fs::read(&path).unwrap()[56..65_536].to_vec()).unwrap();
    assert_eq!(written.trim_end(), text);
}

#[test]
fn the_model_hash_is_that_of_the_header() {
    let bytes = sample();
    let (_folder, path) = on_disk(&bytes);
    let expected = blake3::hash(&bytes[56..65_536]).to_hex();
    assert_eq!(Bundle::open(&path).unwrap().model_hash(), expected[..16]);
}

#[test]
fn a_bundle_may_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Bundle>();
}

#[test]
fn an_open_bundle_outlives_its_name() {
    let (folder, path) = on_disk(&sample());
    let bundle = Bundle::open(&path).unwrap();
    let other = folder.path().join("other");
    fs::write(&other, b"something else").unwrap();
    fs::rename(&other, &path).unwrap();
    bundle.verify().unwrap();
    fs::remove_file(&path).unwrap();
    bundle.verify().unwrap();
}

#[test]
fn only_regular_files_are_opened() {
    let (folder, path) = on_disk(&sample());
    let opening = |path: &Path| chain(&Bundle::open(path).unwrap_err());

    let link = folder.path().join("link.tintype");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    Bundle::open(&link).unwrap().verify().unwrap();

    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
        let expected = format!(
            "cannot use the model file {}: not a regular file: name the .tintype file itself",
            path.display()
        );
        assert_eq!(opening(path), expected);
    }
    let missing = folder.path().join("missing");
    assert_eq!(
        opening(&missing),
        format!(
            "cannot use the model file {}: cannot be read: No such file or directory (os error 2)",
            missing.display()
        )
    );
    let empty = folder.path().join("empty");
    fs::write(&empty, b"").unwrap();
    assert!(opening(&empty).contains("not a tintype file: make one"), "{}", opening(&empty));
}

// ---------------------------------------------------------------------------------------------------
// Malformed: the preamble

#[test]
fn a_preamble_is_refused_with_its_cause() {
    let patched = |offset: usize, patch: &[u8]| {
        let mut file = sample();
        file[offset..offset + patch.len()].copy_from_slice(patch);
        refusal(&file)
    };
    let foreign = "not a tintype file: make one from the model's folder with `tintype import`";
    assert_eq!(refusal(b""), foreign);
    assert_eq!(refusal(b"PK\x03\x04, an archive"), foreign);
    assert_eq!(patched(0, b"\x09TINTYPE"), foreign);
    assert_eq!(
        patched(8, &2u32.to_le_bytes()),
        "is of version 2, not 1: import the model again, or update tintype"
    );
    assert_eq!(
        patched(12, &0x8000_0000u32.to_le_bytes()),
        "flags are 0x80000000, not 0: import the model again, or update tintype"
    );
    for len in [0, 1, 65_535, 65_536, (4 << 20) - 56 + 65_536, 1 << 40, u64::MAX] {
        assert_eq!(
            patched(16, &len.to_le_bytes()),
            format!(
                "header is {len} bytes, not a multiple of 65536 less 56 that is at most 4194248: \
                 copy the file again"
            )
        );
    }
}

#[test]
fn a_kilobyte_that_claims_a_terabyte_is_refused() {
    let mut file = sample();
    file.truncate(1024);
    file[16..24].copy_from_slice(&((1u64 << 40) - 56).to_le_bytes());
    assert!(refusal(&file).starts_with("header is 1099511627720 bytes, "), "{}", refusal(&file));
}

#[test]
fn a_truncated_file_is_refused_at_every_boundary() {
    let file = sample();
    assert_eq!(file.len(), FILE_LEN);
    let starts = blobs().into_iter().flat_map(|(offset, bytes)| [offset, offset + bytes.len()]);
    let cuts = [8, 12, 16, 24, 55, 56, 1024, 65_535].into_iter().chain(starts).chain([FILE_LEN - 1]);
    for cut in cuts.filter(|&cut| cut < FILE_LEN) {
        let expected = match cut {
            ..56 => 56,
            56..65_536 => 65_536,
            _ => FILE_LEN,
        };
        assert_eq!(
            refusal(&file[..cut]),
            format!("is truncated: {expected} bytes are promised, {cut} are there: copy the file again")
        );
    }
}

#[test]
fn what_unclip_needs_is_checked() {
    let with = |field: &str, value: Value| refusal_of(|header| header["pipeline"][field] = value);
    for name in ["", ".", "..", "../a.tintype", "/a", "a\\b", "a\nb"] {
        let refusal = with("base", json!({ "file": name, "model_hash": "00" }));
        assert!(refusal.contains("base is") && refusal.contains("in the same folder"), "{refusal}");
    }
    let unclip = |key: &str, value: Value| {
        let mut unclip =
            json!({ "prior_scheduler": null, "default_prior_steps": 1, "default_prior_guidance": 1.0 });
        unclip[key] = value;
        with("unclip", unclip)
    };
    assert!(unclip("default_prior_steps", json!(0)).contains("default_prior_steps is 0, not 1 to 1000"));
    assert!(unclip("default_prior_guidance", json!(-1)).contains("default_prior_guidance is -1"));
    assert!(unclip("embedding_norm", json!(0)).contains("embedding_norm is 0"));
    assert!(unclip("extra", json!(1)).contains("unknown field `extra`"));
}

#[test]
fn trailing_bytes_are_refused() {
    let mut file = sample();
    file.push(0);
    assert_eq!(refusal(&file), "is 196621 bytes long, but its last blob ends at 196620: copy the file again");
}

#[test]
fn no_changed_byte_of_preamble_or_header_is_accepted() {
    let mut file = sample();
    for offset in 0..65_536 {
        file[offset] ^= 1 << (offset % 8);
        assert!(Header::parse(&file).is_err(), "byte {offset}");
        file[offset] ^= 1 << (offset % 8);
    }
    Header::parse(&file).unwrap();

    file[100] ^= 1;
    let (was, is) = (blake3::hash(&sample()[56..65_536]), blake3::hash(&file[56..65_536]));
    assert_eq!(
        refusal(&file),
        format!("header is damaged: its BLAKE3 is {is}, not {was}: copy the file again")
    );
}

// ---------------------------------------------------------------------------------------------------
// Malformed: the header, with a hash that fits

/// The refusal of a sample whose header was changed by `change`; positions in the JSON are cut off.
fn refusal_of(change: impl FnOnce(&mut Value)) -> String {
    let blobs = blobs();
    let mut header = header_json(&blobs);
    change(&mut header);
    let refusal = refusal(&assemble(&header, &blobs));
    refusal.split(" at line ").next().unwrap().to_owned()
}

/// One case per cause: where in the header, what is put there, and the error.
const REFUSALS: &str = r#"
/pipeline/kind | "video" | header is not that of a version 1 bundle: there is no pipeline of the kind `video`, only stable-diffusion, stable-diffusion-xl, unclip, pixels: update tintype
/components/0/name | "controlnet" | component: name "controlnet" is unknown: update tintype, or import the model again
MID/dtype | "f64" | tensor "mid.weight" of unet: dtype "f64" is unknown: update tintype, or import the model again
MID/layout | "o4k4" | tensor "mid.weight" of unet: layout "o4k4" is unknown: update tintype, or import the model again
MID/scales | "tensor" | tensor "mid.weight" of unet: scales "tensor" is unknown: update tintype, or import the model again

MID/shape | [] | tensor "mid.weight" of unet: 0 dimensions, not 1 to 8
MID/shape | [3,1,1,1,1,1,1,1,33] | tensor "mid.weight" of unet: 9 dimensions, not 1 to 8
MID/shape | [3,0] | tensor "mid.weight" of unet: dimension 1 is 0
MID/shape | [3,-33] | header is not that of a version 1 bundle: invalid value: integer `-33`, expected u64
MID/shape | [3,33.0] | header is not that of a version 1 bundle: invalid type: floating point `33.0`, expected u64
MID/shape | [3,65] | tensor "mid.weight" of unet: 152 bytes long, where its shape takes 292
MID/shape | [18446744073709551615,1] | tensor "mid.weight" of unet: too large for this machine to address
BIAS/shape | [4398046511105] | tensor "out.bias" of unet: 36 bytes long, where its shape takes 17592186044420
BIAS/shape | [4294967296,4294967296] | tensor "out.bias" of unet: too large for this machine to address
BIAS/shape | [4611686018427387904] | tensor "out.bias" of unet: too large for this machine to address
BIAS/layout | "o8k4" | tensor "out.bias" of unet: layout o8k4 needs at least 2 dimensions

MID/scales | null | tensor "mid.weight" of unet: dtype i8 needs scales
BIAS/scales | "channel" | tensor "out.bias" of unet: dtype f32 takes no scales
BIAS/dtype | "f16" | tensor "out.bias" of unet: 36 bytes long, where its shape takes 18
MID/layout | "o8k4" | tensor "mid.weight" of unet: 152 bytes long, where its shape takes 384

BIAS/blob/len | 35 | tensor "out.bias" of unet: 35 bytes long, where its shape takes 36
BIAS/blob/offset | 131647 | tensor "out.bias" of unet: at offset 131647, not 131648
BIAS/blob/offset | 131712 | tensor "out.bias" of unet: at offset 131712, not 131648
BIAS/blob/offset | 131072 | tensor "out.bias" of unet: at offset 131072, not 131648
LAST/blob/offset | 18446744073709551615 | tensor "embedding" of text_encoder: at offset 18446744073709551615, not 196608
/components/0/graph/offset | 0 | graph of unet: at offset 0, not 65600
/components/1/graph/len | 1099511627776 | tensor "conv.weight" of unet: at offset 131072, not 1099511758848
/files/0/blob/offset | 56 | file "tokenizer/vocab.json": at offset 56, not 65536
/files/1/blob/len | 65473 | graph of unet: at offset 65600, not 131136
/files/1/blob/len | 18446744073709551615 | file "tokenizer/merges.txt": too large for this machine to address
/files/0/blob/len | 1e3 | header is not that of a version 1 bundle: invalid type: floating point `1000.0`, expected u64
/files/0/blob/blake3 | "00" | header is not that of a version 1 bundle: expected 64 hex bytes, received 2

/files/1/name | "tokenizer/vocab.json" | file "tokenizer/vocab.json": listed twice
/components/1/name | "unet" | graph of unet: listed twice
MID/name | "out.bias" | tensor "out.bias" of unet: listed twice
MID/name | "" | tensor "" of unet: not a name that may be used
MID/name | "\u001b[2J" | tensor "\u{1b}[2J" of unet: not a name that may be used
/files/0/name | "../vocab.json" | file "../vocab.json": not a name that may be used
/files/0/name | "a/../b" | file "a/../b": not a name that may be used
/files/0/name | "./a" | file "./a": not a name that may be used
/files/0/name | "/etc/passwd" | file "/etc/passwd": not a name that may be used
/files/0/name | "a//b" | file "a//b": not a name that may be used
/files/0/name | "a\\b" | file "a\\b": not a name that may be used
/files/0/name | "a\nb" | file "a\nb": not a name that may be used

/pipeline/scaling_factor | 0.0 | pipeline: scaling_factor is 0, not 0.000001 to 1000000
/pipeline/shift_factor | 1e7 | pipeline: shift_factor is 10000000, not -1000000 to 1000000
/pipeline/latent_channels | 0 | pipeline: latent_channels is 0, not 1 to 1024
/pipeline/vae_scale_factor | 0 | pipeline: vae_scale_factor is 0, not 1 to 1024
/pipeline/default_width_px | 0 | pipeline: default_width_px is 0, not 8 to 65536
/pipeline/default_height_px | 60 | pipeline: default_height_px is 60, not a multiple of 8
/pipeline/default_height_px | 1099511627776 | pipeline: default_height_px is 1099511627776, not 8 to 65536
/pipeline/default_steps | 1001 | pipeline: default_steps is 1001, not 1 to 1000
/pipeline/default_guidance | -1.0 | pipeline: default_guidance is -1, not 0 to 1000
/pipeline/default_guidance | null | header is not that of a version 1 bundle: invalid type: null, expected f64
"#;

#[test]
fn a_header_is_refused_with_its_cause() {
    for case in REFUSALS.lines().filter(|line| !line.is_empty()) {
        let mut columns = case.split(" | ");
        let mut column = || columns.next().unwrap();
        let pointer = column()
            .replace("MID", "/components/0/tensors/1")
            .replace("BIAS", "/components/0/tensors/3")
            .replace("LAST", "/components/1/tensors/0");
        let value: Value = serde_json::from_str(column()).unwrap();
        assert_eq!(refusal_of(|header| put(header, &pointer, value)), column(), "{case}");
    }
}

/// Sets a field, which may be a new one.
fn put(header: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    header.pointer_mut(parent).unwrap()[key] = value;
}

#[test]
fn a_header_of_another_structure_is_refused() {
    const NOT_V1: &str = "header is not that of a version 1 bundle";
    let parent_and_field = [
        ("", "components"),
        ("/pipeline", "scheduler"),
        ("/licences/0", "spdx"),
        ("/files/0", "blob"),
        ("/components/0", "graph"),
        ("/components/0/tensors/0", "shape"),
        ("/components/0/tensors/0/blob", "blake3"),
    ];
    for (parent, field) in parent_and_field {
        let missing = refusal_of(|header| {
            header.pointer_mut(parent).unwrap().as_object_mut().unwrap().shift_remove(field).unwrap();
        });
        assert_eq!(missing, format!("{NOT_V1}: missing field `{field}`"));
        let extra = refusal_of(|header| put(header, &format!("{parent}/extra"), json!(1)));
        assert!(extra.starts_with(&format!("{NOT_V1}: unknown field `extra`, expected ")), "{extra}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let text = header_json(&blobs()).to_string();
    let nested = text.replacen("\"config\":{}", &format!("\"config\":{}", "[".repeat(1000)), 1);
    let twice = text.replacen("\"licences\":", "\"licences\":[],\"licences\":", 1);
    let cases: [(&[u8], &str); 6] = [
        (b"", "EOF while parsing a value"),
        (b"7", "invalid type: integer `7`, expected struct Header"),
        (&text.as_bytes()[..text.len() / 2], "EOF while parsing"),
        (b"{\"pipeline\":\"\xff\"}", "invalid unicode code point"),
        (nested.as_bytes(), "recursion limit exceeded"),
        (twice.as_bytes(), "duplicate field `licences`"),
    ];
    for (json, expected) in cases {
        let refusal = refusal(&region(json));
        let expected = format!("header is not that of a version 1 bundle: {expected}");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

#[test]
fn a_tensor_that_reaches_past_the_end_is_refused() {
    let refusal = refusal_of(|header| {
        let tensor = &mut header["components"][1]["tensors"][0];
        tensor["shape"] = json!([(1u64 << 42) + 1]);
        tensor["blob"]["len"] = json!((1u64 << 43) + 2);
    });
    assert_eq!(
        refusal,
        "is truncated: 8796093218818 bytes are promised, 196620 are there: copy the file again"
    );
}

/// Behind the hash, too, nothing may panic, and what is accepted must lie inside the file.
#[test]
fn no_changed_character_of_the_json_leads_outside_the_file() {
    let mut json = header_json(&blobs()).to_string().into_bytes();
    for index in 0..json.len() {
        let was = json[index];
        for is in [b'0', b'9', b'-', b'.', b'e', b'"', b',', b'[', b'{', b' ', 0, 0xff, was ^ 1, was ^ 32] {
            json[index] = is;
            let Ok(header) = Header::from_json(&json, FILE_LEN as u64) else { continue };
            let tensors = header.components.iter().flat_map(|component| &component.tensors);
            for blob in tensors.map(TensorEntry::blob) {
                assert!(blob.offset % 64 == 0 && blob.offset + blob.len <= FILE_LEN as u64);
            }
        }
        json[index] = was;
    }
}

// ---------------------------------------------------------------------------------------------------
// Damage that only `verify` sees

fn verify_refusal(file: &[u8]) -> String {
    let (_folder, path) = on_disk(file);
    chain(&Bundle::open(&path).unwrap().verify().unwrap_err())
}

#[test]
fn verify_names_the_blob_with_a_flipped_bit() {
    let names = [
        "file \"tokenizer/vocab.json\"",
        "",
        "graph of unet",
        "graph of text_encoder",
        "tensor \"conv.weight\" of unet",
        "tensor \"mid.weight\" of unet",
        "tensor \"out.weight\" of unet",
        "tensor \"out.bias\" of unet",
        "tensor \"embedding\" of text_encoder",
    ];
    for ((offset, bytes), name) in blobs().into_iter().zip(names).filter(|((_, bytes), _)| !bytes.is_empty())
    {
        for index in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut file = sample();
            file[offset + index] ^= 0x10;
            let (was, is) = (blake3::hash(&bytes), blake3::hash(&file[offset..offset + bytes.len()]));
            assert_eq!(
                verify_refusal(&file),
                format!("{name}: damaged: its BLAKE3 is {is}, not {was}: copy the file again")
            );
        }
    }
}

#[test]
fn verify_names_padding_that_is_not_zero() {
    for offset in [65_536 + 7, 65_600 + 10, 65_674, 131_071, 131_168 + 31, 131_199, 196_607] {
        let mut file = sample();
        file[offset] = 0x20;
        assert_eq!(
            verify_refusal(&file),
            format!("padding at offset {offset} is 0x20, not 0: copy the file again")
        );
    }
}

#[test]
fn verify_names_a_scale_that_is_not_finite() {
    for (scale, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut blobs = blobs();
        blobs[5].1[128 + 4 * 5..].copy_from_slice(&scale.to_le_bytes());
        assert_eq!(
            verify_refusal(&assemble(&header_json(&blobs), &blobs)),
            format!("tensor \"mid.weight\" of unet: scale 5 is {text}: import the model again")
        );
    }
}

#[test]
fn verify_tensor_reads_that_tensor_alone() {
    let mut file = sample();
    file[131_648] ^= 1;
    let (_folder, path) = on_disk(&file);
    let bundle = Bundle::open(&path).unwrap();
    let unet = bundle.component(Component::Unet).unwrap();
    bundle.verify_tensor(Component::Unet, unet.tensor("out.weight").unwrap()).unwrap();
    let error = bundle.verify_tensor(Component::Unet, unet.tensor("out.bias").unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("tensor \"out.bias\" of unet: damaged"), "{error}");
}

// ---------------------------------------------------------------------------------------------------
// Writing

/// The header of the sample as an importer makes it: no offsets, no hashes.
fn plan() -> Header {
    use Component::{TextEncoder, Unet};
    let tensor = |component, name: &str, dtype, shape: &[usize], layout, scales| {
        TensorEntry::new(component, name.to_owned(), dtype, shape, layout, scales).unwrap()
    };
    let file = |name: &str, len| FileEntry { name: name.to_owned(), blob: Blob::unwritten(len) };
    Header {
        pipeline: serde_json::from_value::<Pipeline>(pipeline_json()).unwrap(),
        licences: vec![Licence {
            name: "weights".to_owned(),
            spdx: "MIT".to_owned(),
            notice: "Copyright: none".to_owned(),
        }],
        files: vec![file("tokenizer/vocab.json", 7), file("tokenizer/merges.txt", 0)],
        components: vec![
            ComponentEntry {
                name: Unet,
                config: json!({ "sample_size": 16, "act_fn": "silu" }),
                graph: Blob::unwritten(UNET_GRAPH.len() as u64),
                tensors: vec![
                    tensor(
                        Unet,
                        "conv.weight",
                        Dtype::I8,
                        &[2, 1, 1, 5],
                        Layout::O8k4,
                        Some(Scales::Channel),
                    ),
                    tensor(Unet, "mid.weight", Dtype::I8, &[3, 33], Layout::Row, Some(Scales::Block32)),
                    tensor(Unet, "out.weight", Dtype::F16, &[9, 5], Layout::O8k4, None),
                    tensor(Unet, "out.bias", Dtype::F32, &[9], Layout::Row, None),
                ],
            },
            ComponentEntry {
                name: TextEncoder,
                config: json!({}),
                graph: Blob::unwritten(TEXT_GRAPH.len() as u64),
                tensors: vec![tensor(TextEncoder, "embedding", Dtype::F16, &[3, 2], Layout::Row, None)],
            },
        ],
    }
}

/// Writes the blobs of the sample, all of them.
fn write_all(writer: &mut BundleWriter) -> Result<(), WriteError> {
    use Component::{TextEncoder, Unet};
    writer.write_file("tokenizer/vocab.json", VOCAB)?;
    writer.write_file("tokenizer/merges.txt", b"")?;
    writer.write_graph(Unet, UNET_GRAPH)?;
    writer.write_graph(TextEncoder, TEXT_GRAPH)?;
    writer.write_tensor(Unet, "conv.weight", Values::I8 { values: &i8s(64), scales: &CONV_SCALES })?;
    writer.write_tensor(Unet, "mid.weight", Values::I8 { values: &i8s(99), scales: &MID_SCALES })?;
    writer.write_tensor(Unet, "out.weight", Values::F16(&f16s(128)))?;
    writer.write_tensor(Unet, "out.bias", Values::F32(&BIAS))?;
    writer.write_tensor(TextEncoder, "embedding", Values::F16(&f16s(6)))
}

fn write(path: &Path, header: Header) -> Result<(), WriteError> {
    let mut writer = BundleWriter::create(path, header)?;
    write_all(&mut writer)?;
    writer.finish()
}

#[test]
fn the_writer_makes_the_very_bytes_of_the_hand_made_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.tintype");
    fs::write(&path, b"an older version").unwrap();
    write(&path, plan()).unwrap();
    assert!(fs::read(&path).unwrap() == sample(), "the files differ");
    assert_eq!(names_in(folder.path()), ["sample.tintype"]);
    Bundle::open(&path).unwrap().verify().unwrap();
}

#[test]
fn a_header_that_was_read_can_be_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.tintype");
    write(&path, Header::parse(&sample()).unwrap()).unwrap();
    assert!(fs::read(&path).unwrap() == sample(), "the files differ");
}

/// Offsets lengthen the header, and its length moves the offsets.
#[test]
fn headers_around_the_length_of_a_section_are_placed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.tintype");
    let fits = 65_536 - 56 - header_json(&blobs()).to_string().len();
    for (extra, len) in
        [(fits - 1, 0), (fits, 0), (fits + 1, 65_536), (fits + 9, 65_536), (200_000, 4 * 65_536)]
    {
        let mut header = plan();
        header.licences[0].notice += &"x".repeat(extra);
        write(&path, header).unwrap();
        Bundle::open(&path).unwrap().verify().unwrap();
        let moved = if extra == 200_000 { 3 * 65_536 } else { len };
        assert_eq!(fs::metadata(&path).unwrap().len(), (FILE_LEN + moved) as u64, "{extra} more characters");
    }
}

#[test]
fn a_writer_that_fails_leaves_nothing_behind() {
    use Component::{TextEncoder, Unet};
    type Step = fn(&mut BundleWriter) -> Result<(), WriteError>;
    let cases: [(Step, &str); 9] = [
        (
            |w| w.write_graph(Unet, UNET_GRAPH),
            "graph of unet was written where file \"tokenizer/vocab.json\" was due",
        ),
        (
            |w| w.write_file("other", b""),
            "file \"other\" was written where file \"tokenizer/vocab.json\" was due",
        ),
        (
            |w| w.write_file("tokenizer/vocab.json", b"longer than 7"),
            "file \"tokenizer/vocab.json\": 13 bytes, not 7",
        ),
        (
            |w| w.write_graph(Component::Prior, b""),
            "graph of prior was written where file \"tokenizer/vocab.json\" was due",
        ),
        (
            |w| w.write_tensor(TextEncoder, "nothing", Values::F32(&[])),
            "tensor \"nothing\" of text_encoder was written where file \"tokenizer/vocab.json\" was due",
        ),
        (
            |w| w.write_tensor(Unet, "out.bias", Values::F16(&f16s(9))),
            "tensor \"out.bias\" of unet: f16 values, not f32",
        ),
        (
            |w| w.write_tensor(Unet, "out.bias", Values::F32(&BIAS[1..])),
            "tensor \"out.bias\" of unet: 8 values, not 9",
        ),
        (
            |w| w.write_tensor(Unet, "conv.weight", Values::I8 { values: &i8s(64), scales: &[0.5, -0.25] }),
            "tensor \"conv.weight\" of unet: 2 scales, not 8",
        ),
        (
            |w| write_all(w).and_then(|()| w.write_graph(Unet, UNET_GRAPH)),
            "graph of unet was written where nothing more was due",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.tintype");
    for (step, expected) in cases {
        let mut writer = BundleWriter::create(&path, plan()).unwrap();
        assert_eq!(chain(&step(&mut writer).unwrap_err()), expected);
        drop(writer);
        assert_eq!(names_in(folder.path()), [""; 0], "{expected}");
    }

    let mut writer = BundleWriter::create(&path, plan()).unwrap();
    writer.write_file("tokenizer/vocab.json", VOCAB).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(chain(&error), "file \"tokenizer/merges.txt\" was not written");
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[test]
fn a_step_that_failed_may_be_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.tintype");
    let mut writer = BundleWriter::create(&path, plan()).unwrap();
    writer.write_file("tokenizer/vocab.json", b"").unwrap_err();
    write_all(&mut writer).unwrap();
    writer.finish().unwrap();
    assert!(fs::read(&path).unwrap() == sample(), "the files differ");
}

#[test]
fn a_target_that_cannot_be_replaced_stays() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("missing/sample.tintype");
    assert_eq!(
        chain(&write(&nowhere, plan()).unwrap_err()).split(" at path").next().unwrap(),
        format!("cannot write {}: No such file or directory (os error 2)", nowhere.display())
    );
    let occupied = folder.path().join("folder");
    fs::create_dir(&occupied).unwrap();
    assert_eq!(
        chain(&write(&occupied, plan()).unwrap_err()),
        format!("cannot write {}: Is a directory (os error 21)", occupied.display())
    );
    assert_eq!(names_in(folder.path()), ["folder"]);
}

#[test]
fn a_header_that_no_reader_would_take_is_not_written() {
    type Change = fn(&mut Header);
    let cases: [(Change, &str); 5] = [
        (
            |h| h.pipeline.default_guidance = f64::NAN,
            "header is not that of a version 1 bundle: invalid type: null, expected f64",
        ),
        (|h| h.pipeline.default_steps = 0, "pipeline: default_steps is 0, not 1 to 1000"),
        (|h| h.files[1].name = h.files[0].name.clone(), "file \"tokenizer/vocab.json\": listed twice"),
        (|h| h.components[0].graph.len = u64::MAX, "graph of unet: too large for this machine to address"),
        (
            |h| h.licences[0].notice = "x".repeat(4 << 20),
            "header is 4259784 bytes, not a multiple of 65536 less 56 that is at most 4194248: copy the file again",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (change, expected) in cases {
        let mut header = plan();
        change(&mut header);
        let error = BundleWriter::create(&folder.path().join("sample.tintype"), header).unwrap_err();
        let chain = chain(&error);
        let refusal = chain.strip_prefix("the header is not one that can be read back: ").unwrap();
        assert_eq!(refusal.split(" at line ").next().unwrap(), expected);
        assert_eq!(names_in(folder.path()), [""; 0]);
    }
}

// ---------------------------------------------------------------------------------------------------
// The worked example of docs/format.md

/// A bundle of one small file, one graph and two tensors.
fn example(folder: &Path) -> Vec<u8> {
    let unet = Component::Unet;
    let tensor = |name: &str, dtype, shape: &[usize], layout, scales| {
        TensorEntry::new(unet, name.to_owned(), dtype, shape, layout, scales).unwrap()
    };
    let header = Header {
        licences: Vec::new(),
        files: vec![FileEntry { name: "vocab.json".to_owned(), blob: Blob::unwritten(7) }],
        components: vec![ComponentEntry {
            name: unet,
            config: json!({}),
            graph: Blob::unwritten(5),
            tensors: vec![
                tensor("weight", Dtype::I8, &[2, 5], Layout::O8k4, Some(Scales::Channel)),
                tensor("bias", Dtype::F32, &[2], Layout::Row, None),
            ],
        }],
        ..plan()
    };
    let path = folder.join("example.tintype");
    let mut writer = BundleWriter::create(&path, header).unwrap();
    writer.write_file("vocab.json", VOCAB).unwrap();
    writer.write_graph(unet, b"graph").unwrap();
    let values = tintype::bundle::pack_o8k4(&[1, 2, 3, 4, 5, -1, -2, -3, -4, -5], 2, 5);
    let scales = tintype::bundle::pack_o8k4_scales(&[0.5, 0.25], 2, 1);
    writer.write_tensor(unet, "weight", Values::I8 { values: &values, scales: &scales }).unwrap();
    writer.write_tensor(unet, "bias", Values::F32(&[1.0, -1.0])).unwrap();
    writer.finish().unwrap();
    fs::read(path).unwrap()
}

/// As `hexdump -C` prints it: lines that repeat the one before are a star.
fn hexdump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    let mut before: Option<&[u8]> = None;
    for (index, line) in bytes.chunks(16).enumerate() {
        if before == Some(line) {
            dump += if dump.ends_with("*\n") { "" } else { "*\n" };
            continue;
        }
        let hex = |half: &[u8]| half.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
        let text: String = line.iter().map(|&b| if matches!(b, 32..127) { b as char } else { '.' }).collect();
        let (left, right) = line.split_at(line.len().min(8));
        dump += &format!("{:08x}  {:<24} {:<24} |{text}|\n", index * 16, hex(left), hex(right));
        before = Some(line);
    }
    dump + &format!("{:08x}\n", bytes.len())
}

#[test]
fn the_document_shows_this_very_file() {
    let folder = tempfile::tempdir().unwrap();
    let dump = hexdump(&example(folder.path()));
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    assert!(document.contains(&dump), "docs/format.md must hold this dump:\n{dump}");
}
