//! Latent diffusion on small boards, offline, in little memory.
//!
//! The modules stand on floors and import only from lower ones; `docs/architecture.md` has the map.

#![deny(unsafe_code)]
#![warn(missing_docs, clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod allocator;
pub mod bundle;
pub mod cli;
pub mod client;
pub mod clip;
pub mod denoise;
pub mod engine;
pub mod error;
pub mod import;
pub mod kernels;
pub mod lora;
pub mod machine;
pub mod map;
pub mod names;
pub mod output;
pub mod picture;
pub mod pipeline;
pub mod process;
pub mod protocol;
pub mod serve;
pub mod sheet;
pub mod tensor;
pub mod tensor_file;
pub mod text;
pub mod vae;
