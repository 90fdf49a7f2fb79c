//! Any ONNX file at all: the import must refuse it or take it over.
#![no_main]

#[path = "../inputs.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(inputs::onnx(data)));
