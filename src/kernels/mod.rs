//! The arithmetic: pure slices in, slices out. Nothing here logs, names a file or allocates inside a loop.
//!
//! Every kernel has a plain scalar form, which is its definition. Loops over elements are compiled once for each level
//! ([`Level::run`]), which changes their speed and nothing else. Where that is not enough, a form for one instruction set
//! stands in that set's own file, behind a witness type that only detection can make, and the tests hold it against the
//! scalar one.
//!
//! Products are built from one shape of tile: [`ROWS`] rows of activations times a panel of [`LANES`]
//! output channels. Activations are read where they lie (channels last); the panel is a transient `f32`
//! copy of a few weights, made by [`dequantise`]. Where a level has dot products, rows and panel may be
//! integers instead ([`integer`]).

pub mod activation;
pub mod arithmetic;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod dequantise;
#[cfg(target_arch = "aarch64")]
mod dotprod;
pub mod elementary;
#[cfg(target_arch = "aarch64")]
mod i8mm;
pub mod integer;
pub mod lanes;
pub mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod norm;
pub mod panel;
pub mod quantise;
pub mod softmax;
pub mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;
pub mod winograd;

pub use arithmetic::Arithmetic;
pub use level::Level;
pub use tile::{LANES, Line, ROWS};
