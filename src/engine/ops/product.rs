//! The product that convolutions and linear layers share: rows of channels times a matrix in the file.
//!
//! ```text
//! for 16 output channels
//!     for a run of inputs that fits the first-level cache
//!         dequantise the panel [run][16]
//!         for six rows at a time
//!             out[6][16] += rows[6][run] * panel
//! ```
//! A convolution is a product with `kh * kw` taps: each tap has its own row for an output pixel, which the
//! caller finds. The accumulators live in the output between runs, so nothing else is allocated but the panel.

use std::ops::Range;

use crate::engine::threads::Threads;
use crate::engine::weights::{Matrix, Vector};
use crate::kernels::dequantise::GROUP;
use crate::kernels::{LANES, Level, ROWS, tile};

/// Inputs in a panel: 256 rows of 16 floats are 16 KiB, half of a first-level cache.
const RUN: usize = 256;
/// Output rows that one thread takes at a time.
const CHUNK_ROWS: usize = 32 * ROWS;
/// With fewer rows than this, threads share out the output channels instead.
const FEW_ROWS: usize = 1024;

/// A matrix, the bias that goes with it, and how its inputs divide into taps.
#[derive(Debug)]
pub struct Product {
    matrix: Matrix,
    bias: Option<Vector>,
    taps: usize,
    level: Level,
}

/// Inputs that are dequantised together: some taps, and a range of the channels of each.
struct Step {
    taps: Range<usize>,
    channels: Range<usize>,
}

impl Product {
    /// A product with `taps` taps of equally many channels.
    ///
    /// # Errors
    /// A sentence, if the bias does not fit the matrix.
    pub fn new(matrix: Matrix, bias: Option<Vector>, taps: usize) -> Result<Self, String> {
        if let Some(bias) = &bias {
            super::expect_channels("bias", bias.values().len(), matrix.outputs())?;
        }
        Ok(Self { matrix, bias, taps, level: Level::detect() })
    }

    /// The number of output channels.
    pub fn outputs(&self) -> usize {
        self.matrix.outputs()
    }

    /// The number of channels that a row must have.
    pub fn channels(&self) -> usize {
        self.matrix.inputs() / self.taps
    }

    /// What a run over `rows` rows allocates: a panel for each thread, where the rows lie, and the columns side by side.
    pub fn scratch_bytes(&self, rows: usize, threads: usize) -> usize {
        let panels = threads * RUN.max(self.longest_step()) * size_of::<[f32; LANES]>();
        let by_columns = threads > 1 && rows <= FEW_ROWS;
        let (found, columns) = match by_columns {
            true => (rows, self.outputs().next_multiple_of(LANES) * rows * size_of::<f32>()),
            false => (threads * rows.min(CHUNK_ROWS), 0),
        };
        panels + found * self.taps * size_of::<&[f32]>() + columns
    }

    /// `output`: `[rows, outputs]`; `row(n, tap)` finds the inputs of row `n` at a tap.
    pub fn run<'a>(
        &self,
        output: &mut [f32],
        threads: &Threads,
        row: impl Fn(usize, usize) -> &'a [f32] + Sync + Send,
    ) {
        let outputs = self.outputs();
        let rows = output.len() / outputs;
        if rows > FEW_ROWS || threads.count() == 1 {
            threads.for_each_chunk(output, CHUNK_ROWS * outputs, |at, chunk| {
                let found = self.find(at * CHUNK_ROWS..at * CHUNK_ROWS + chunk.len() / outputs, &row);
                for first in (0..outputs).step_by(LANES) {
                    self.columns(first, &found, chunk, outputs, first);
                }
            });
        } else {
            self.run_by_columns(&self.find(0..rows, &row), output, threads);
        }
    }

    /// The inputs of some rows: those at the first tap, then those at the second, and so on. Found once, as every panel
    /// needs them.
    fn find<'a>(&self, rows: Range<usize>, row: impl Fn(usize, usize) -> &'a [f32]) -> Vec<&'a [f32]> {
        let mut found = Vec::with_capacity(self.taps * rows.len());
        (0..self.taps).for_each(|tap| found.extend(rows.clone().map(|at| row(at, tap))));
        found
    }

    /// Each thread makes some columns of all rows, side by side; then they are brought together.
    fn run_by_columns(&self, found: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let outputs = self.outputs();
        let rows = output.len() / outputs;
        let mut blocks = vec![0.0; outputs.div_ceil(LANES) * rows * LANES];
        threads.for_each_chunk(&mut blocks, rows * LANES, |at, block| {
            self.columns(at * LANES, found, block, LANES, 0);
        });
        for (at, block) in blocks.chunks_exact(rows * LANES).enumerate() {
            let width = LANES.min(outputs - at * LANES);
            for (line, sums) in output.chunks_exact_mut(outputs).zip(block.as_chunks::<LANES>().0) {
                line[at * LANES..][..width].copy_from_slice(&sums[..width]);
            }
        }
    }

    /// Output channels `first .. first + 16` of the rows of `chunk`, which has `stride` numbers a row and
    /// wants them from `column` on; `found` has their inputs.
    fn columns(&self, first: usize, found: &[&[f32]], chunk: &mut [f32], stride: usize, column: usize) {
        let width = LANES.min(self.outputs() - first).min(stride - column);
        self.begin(first, chunk, stride, column, width);
        let mut panel = vec![[0.0; LANES]; RUN.max(self.longest_step())];
        for step in self.steps() {
            let channels = self.channels();
            let len = (step.taps.len() - 1) * channels + step.channels.len();
            let panel = &mut panel[..len];
            self.matrix.panel(self.level, first, step.taps.start * channels + step.channels.start, panel);
            let lines = chunk.len() / stride;
            for line in (0..lines).step_by(ROWS) {
                let count = ROWS.min(lines - line);
                let mut acc = load(&chunk[line * stride..], stride, column, width, count);
                for (tap, panel) in step.taps.clone().zip(panel.chunks(step.channels.len())) {
                    let inputs = &found[tap * lines + line..][..count];
                    let rows = std::array::from_fn(|r| &inputs[r.min(count - 1)][step.channels.clone()]);
                    tile::accumulate(self.level, &rows, panel, &mut acc);
                }
                store(&acc, &mut chunk[line * stride..], stride, column, width, count);
            }
        }
    }

    /// Puts the bias where the sums will be.
    fn begin(&self, first: usize, chunk: &mut [f32], stride: usize, column: usize, width: usize) {
        let Some(bias) = &self.bias else { return };
        let bias = &bias.values()[first..first + width];
        for line in chunk.chunks_exact_mut(stride) {
            line[column..column + width].copy_from_slice(bias);
        }
    }

    /// A panel starts at a multiple of 4 inputs: taps of another length are taken all at once.
    fn longest_step(&self) -> usize {
        if self.channels().is_multiple_of(4) { RUN } else { self.matrix.inputs() }
    }

    fn steps(&self) -> impl Iterator<Item = Step> {
        let (channels, run) = (self.channels(), self.longest_step());
        let taps_at_once = (run / channels).clamp(1, self.taps);
        // In even parts: a short one would be all loading and storing.
        let channels_at_once =
            channels.div_ceil(channels.div_ceil(run)).next_multiple_of(GROUP).min(channels);
        (0..self.taps).step_by(taps_at_once).flat_map(move |tap| {
            (0..channels).step_by(channels_at_once).map(move |channel| Step {
                taps: tap..(tap + taps_at_once).min(self.taps),
                channels: channel..(channel + channels_at_once).min(channels),
            })
        })
    }
}

fn load(lines: &[f32], stride: usize, column: usize, width: usize, count: usize) -> tile::Tile {
    let mut acc = [[0.0; LANES]; ROWS];
    for (sums, line) in acc.iter_mut().zip(lines.chunks(stride)).take(count) {
        sums[..width].copy_from_slice(&line[column..column + width]);
    }
    acc
}

fn store(acc: &tile::Tile, lines: &mut [f32], stride: usize, column: usize, width: usize, count: usize) {
    for (sums, line) in acc.iter().zip(lines.chunks_mut(stride)).take(count) {
        line[column..column + width].copy_from_slice(&sums[..width]);
    }
}
