//! What a run may use of the machine, and what it adds to the model.

use std::sync::Arc;

use super::adapters::Adapters;
use super::pulse::Pulse;
use super::threads::Threads;
use crate::kernels::{Arithmetic, Level};

/// Threads, memory and additions for the components of a run.
#[derive(Debug, Clone)]
pub struct Resources {
    /// The threads to compute with.
    pub threads: Threads,
    /// Anonymous memory of the whole process, in bytes; no limit if `None`.
    pub memory_bytes: Option<usize>,
    /// How the large maps of an autoencoder are worked on.
    pub tile: Tile,
    /// What products with `int8` weights are computed in.
    pub arithmetic: Arithmetic,
    /// Tells that a run goes on, and can end it.
    pub pulse: Pulse,
    /// What is added to layers of the model.
    pub adapters: Arc<Adapters>,
}

/// How large maps are worked on. Whole or in stripes the result is the same, but for rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tile {
    /// Whole where that fits the memory, in stripes where not.
    Auto,
    /// Always whole.
    Off,
    /// In stripes of so many rows of the picture.
    Rows(usize),
    /// In overlapping tiles of so many pixels a side, each decoded by itself: with seams.
    Blend(usize),
}

impl Resources {
    /// These threads, as much memory as it takes, and the fastest arithmetic.
    pub fn new(threads: Threads) -> Self {
        let arithmetic = Arithmetic::wanted_or(Level::detect().arithmetic());
        Self {
            threads,
            memory_bytes: None,
            tile: Tile::Auto,
            arithmetic,
            pulse: Pulse::default(),
            adapters: Arc::default(),
        }
    }
}
