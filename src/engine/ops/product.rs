//! The product that convolutions and linear layers share: rows of channels times a matrix in the file.
//!
//! ```text
//! for 64 output channels
//!     for a run of inputs whose panels fit the first-level cache, one at a time
//!         dequantise four panels [run][16]
//!         for rows that fit the second-level cache
//!             for each panel
//!                 for six rows at a time
//!                     out[6][16] += rows[6][run] * panel
//! ```
//! A convolution is a product with `kh * kw` taps: each tap has its own row for an output pixel, which the
//! caller finds. The accumulators live in the output between runs, so nothing else is allocated but the panel.

use std::ops::Range;

use crate::engine::threads::Threads;
use crate::engine::weights::{Matrix, Vector};
use crate::kernels::dequantise::GROUP;
use crate::kernels::{LANES, Level, Line, ROWS, tile};

/// Inputs in a panel: 320 rows of 16 floats are 20 KiB, with six rows of as many 27.5 KiB of a first-level cache.
const RUN: usize = 320;
/// Panels that are filled together: their rows are read once for all of them.
const PANELS: usize = 4;
/// Rows that all panels pass over before the next: with 320 inputs of each, 120 KiB.
const PASS_ROWS: usize = 16 * ROWS;
/// Output rows that one thread takes at a time.
const CHUNK_ROWS: usize = 84 * ROWS;
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

    /// The instruction set that is used.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The weights of outputs `first .. first + 16` for the inputs from `start` on; `first` is a multiple of 16, `start` of 4.
    pub fn panel(&self, first: usize, start: usize, panel: &mut [Line]) {
        self.matrix.panel(self.level, first, start, panel);
    }

    /// The bias of outputs `first .. first + 16`, zeros where there is none.
    pub fn bias(&self, first: usize) -> Line {
        let mut line = Line::ZERO;
        if let Some(bias) = &self.bias {
            line.iter_mut().zip(&bias.values()[first..]).for_each(|(line, bias)| *line = *bias);
        }
        line
    }

    /// What a run over `rows` rows allocates: a panel for each thread, where the rows lie, and the columns side by side.
    pub fn scratch_bytes(&self, rows: usize, threads: usize) -> usize {
        let panels = threads * PANELS * RUN.max(self.longest_step()) * size_of::<Line>();
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
                for first in (0..outputs).step_by(PANELS * LANES) {
                    let width = outputs.min(first + PANELS * LANES) - first;
                    self.columns(first, &found, chunk, first..first + width);
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
        let panels = self.panels_of_thread(threads.count());
        let mut blocks = vec![0.0; outputs.div_ceil(LANES) * LANES * rows];
        threads.for_each_chunk(&mut blocks, panels * LANES * rows, |at, block| {
            let columns = 0..block.len() / rows;
            self.columns(at * panels * LANES, found, block, columns);
        });
        threads.for_each_item(output, outputs, |row, line| {
            for (channels, block) in line.chunks_mut(panels * LANES).zip(blocks.chunks(panels * LANES * rows))
            {
                let width = block.len() / rows;
                channels.copy_from_slice(&block[row * width..][..channels.len()]);
            }
        });
    }

    /// As many as leave every thread something to do, and none much more than others.
    fn panels_of_thread(&self, threads: usize) -> usize {
        (self.outputs().div_ceil(LANES) / (4 * threads)).clamp(1, PANELS)
    }

    /// Output channels from `first` on of the rows of `chunk`, which are wanted in its `columns`; `found` has their inputs.
    fn columns(&self, first: usize, found: &[&[f32]], chunk: &mut [f32], columns: Range<usize>) {
        let lines = found.len() / self.taps;
        let stride = chunk.len() / lines;
        self.begin(first, chunk, stride, &columns);
        let panel_len = RUN.max(self.longest_step());
        let mut panels = vec![Line::ZERO; PANELS.min(columns.len().div_ceil(LANES)) * panel_len];
        for step in self.steps() {
            let start = step.taps.start * self.channels() + step.channels.start;
            let len = (step.taps.len() - 1) * self.channels() + step.channels.len();
            for (panel, first) in panels.chunks_exact_mut(panel_len).zip((first..).step_by(LANES)) {
                self.panel(first, start, &mut panel[..len]);
            }
            for line in (0..lines).step_by(PASS_ROWS) {
                let pass = line..lines.min(line + PASS_ROWS);
                for (panel, column) in panels.chunks_exact(panel_len).zip(columns.clone().step_by(LANES)) {
                    let columns = column..columns.end.min(column + LANES);
                    self.pass(&step, &panel[..len], found, pass.clone(), chunk, &columns);
                }
            }
        }
    }

    /// Adds the products of some rows with a panel to their sums.
    fn pass(
        &self,
        step: &Step,
        panel: &[Line],
        found: &[&[f32]],
        rows: Range<usize>,
        chunk: &mut [f32],
        columns: &Range<usize>,
    ) {
        let lines = found.len() / self.taps;
        let stride = chunk.len() / lines;
        for line in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - line);
            let sums = &mut chunk[line * stride..][..count * stride];
            let mut acc = load(sums, stride, columns);
            for (tap, panel) in step.taps.clone().zip(panel.chunks(step.channels.len())) {
                let inputs = &found[tap * lines + line..][..count];
                let rows = std::array::from_fn(|r| &inputs[r.min(count - 1)][step.channels.clone()]);
                tile::accumulate(self.level, &rows, panel, &mut acc);
            }
            store(&acc, sums, stride, columns);
        }
    }

    /// Puts the bias where the sums will be.
    fn begin(&self, first: usize, chunk: &mut [f32], stride: usize, columns: &Range<usize>) {
        let Some(bias) = &self.bias else { return };
        let bias = &bias.values()[first..self.outputs().min(first + columns.len())];
        for line in chunk.chunks_exact_mut(stride) {
            line[columns.start..][..bias.len()].copy_from_slice(bias);
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

/// The sums in some columns of at most six lines.
fn load(lines: &[f32], stride: usize, columns: &Range<usize>) -> tile::Tile {
    let mut acc = [Line::ZERO; ROWS];
    for (sums, line) in acc.iter_mut().zip(lines.chunks(stride)) {
        match line[columns.clone()].try_into() {
            Ok(all) => *sums = Line(all),
            Err(_) => sums[..columns.len()].copy_from_slice(&line[columns.clone()]),
        }
    }
    acc
}

fn store(acc: &tile::Tile, lines: &mut [f32], stride: usize, columns: &Range<usize>) {
    for (sums, line) in acc.iter().zip(lines.chunks_mut(stride)) {
        match <&mut [f32; LANES]>::try_from(&mut line[columns.clone()]) {
            Ok(all) => *all = sums.0,
            Err(_) => line[columns.clone()].copy_from_slice(&sums[..columns.len()]),
        }
    }
}
