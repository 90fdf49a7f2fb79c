//! What is done with an input, by the fuzzer and by the test that replays its corpora.
#![allow(dead_code, reason = "each target uses its own part")]

use std::error::Error;
use std::fmt::Write as _;

use serde_json::Value;
use tintype::bundle::Bundle;
use tintype::engine::onnx;

/// Bytes before the header.
const PREAMBLE_LEN: usize = 56;
/// What the length of preamble and header is a multiple of.
const SECTION_LEN: usize = 64 << 10;
/// The longest file that is made.
const MAX_LEN: usize = 1 << 20;
/// Longer inputs are cut.
const MAX_HEADER: usize = 1 << 20;

/// Opens a model file with this header, which has the right checksum, and looks at everything in it.
///
/// # Errors
/// The chain of causes, if it is refused.
pub fn bundle(header: &[u8]) -> Result<(), String> {
    let header = &header[..header.len().min(MAX_HEADER)];
    let mut region = header.to_vec();
    region.resize((PREAMBLE_LEN + header.len()).next_multiple_of(SECTION_LEN) - PREAMBLE_LEN, b' ');
    let mut file = b"\x89TINTYPE".to_vec();
    file.extend(1u32.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend((region.len() as u64).to_le_bytes());
    file.extend(blake3::hash(&region).as_bytes());
    file.extend(region);
    // The file is as long as the header says, unless that is absurd: the checks behind the length are reached too.
    let end = serde_json::from_slice(header).map_or(0, |header: Value| end_of_blobs(&header));
    if (file.len()..=MAX_LEN).contains(&end) {
        file.resize(end, 0);
    }
    open(&file)
}

/// The largest sum of an `offset` and a `len` that stand together.
fn end_of_blobs(value: &Value) -> usize {
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    let own = number("offset").zip(number("len")).and_then(|(offset, len)| offset.checked_add(len));
    let inner: Vec<usize> = match value {
        Value::Object(object) => object.values().map(end_of_blobs).collect(),
        Value::Array(array) => array.iter().map(end_of_blobs).collect(),
        _ => Vec::new(),
    };
    inner.into_iter().chain(own.and_then(|end| usize::try_from(end).ok())).max().unwrap_or(0)
}

fn open(file: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let path = folder.path().join("fuzzed.tintype");
    std::fs::write(&path, file).expect("it can be written to");
    let bundle = Bundle::open(&path).map_err(|error| chain(&error))?;
    for component in &bundle.header().components {
        assert!(bundle.graph(component).len() as u64 == component.graph.len);
        for tensor in &component.tensors {
            assert_eq!(bundle.tensor(tensor).shape, tensor.shape());
        }
    }
    // Its checksums are those of zeros at best.
    let _ = bundle.verify();
    Ok(())
}

/// Imports a graph from an ONNX file.
///
/// # Errors
/// The chain of causes, if it is refused.
pub fn onnx(model: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model).expect("it can be written to");
    let imported = onnx::import(&path, &|_, at| [1, 4, 8, 8].get(at).copied().unwrap_or(4));
    let imported = imported.map_err(|error| chain(&error))?;
    for (name, constant) in &imported.weights {
        constant.read(name, &imported.initialisers).map_err(|error| chain(&error))?;
    }
    Ok(())
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        write!(text, ": {next}").expect("text can be written");
        cause = next.source();
    }
    text
}
