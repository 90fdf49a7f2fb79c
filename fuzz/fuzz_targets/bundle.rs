//! Any header at all: opening must refuse it or stand by what it says.
#![no_main]

#[path = "../inputs.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(inputs::bundle(data)));
