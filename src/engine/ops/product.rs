//! The product that convolutions and linear layers share: rows of channels times a matrix in the file.
//!
//! ```text
//! for 64 output channels
//!     for a run of inputs whose panels fit the first-level cache, one at a time
//!         fill four panels, 16 output channels each
//!         for rows that fit the second-level cache
//!             for each panel
//!                 for six rows at a time
//!                     sums[6][16] += rows[6][run] * panel
//!     out = sums
//! ```
//! A convolution is a product with `kh * kw` taps: each tap has its own row for an output pixel, which the
//! caller finds. What is allocated are the panels, what the rows are made into ([`Inputs`]), and the sums of 64 output
//! channels, which lie as the kernel wants them until they are done.

use std::ops::Range;

use super::inputs::{Floats, Inputs, Integers};
use crate::engine::graph::Then;
use crate::engine::threads::Threads;
use crate::engine::weights::{Matrix, SCALE_RUN, Vector};
use crate::kernels::activation::gate_lines;
use crate::kernels::integer::{Integer, RUN_MAX, STEP};
use crate::kernels::panel::Panel;
use crate::kernels::tile::Tile;
use crate::kernels::{Arithmetic, LANES, Level, Line, ROWS};

/// Inputs in a panel: 320 rows of 16 floats are 20 KiB, with six rows of as many 27.5 KiB of a first-level cache.
const RUN: usize = 320;
/// Panels that are filled together: their rows are read once for all of them.
const PANELS: usize = 4;
/// Tiles of rows that all panels pass over before the next: with 320 inputs of each row, 120 KiB.
const PASS_TILES: usize = 16;
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
    then: Option<Then>,
    level: Level,
}

/// Inputs that are multiplied together: some taps, and a range of the channels of each.
#[derive(Debug, Clone)]
pub struct Step {
    /// The taps.
    pub taps: Range<usize>,
    /// The channels.
    pub channels: Range<usize>,
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
        Ok(Self { matrix, bias, taps, then: None, level: Level::detect() })
    }

    /// The same, and what is done with the outputs.
    pub fn then(self, then: Option<Then>) -> Self {
        Self { then, ..self }
    }

    /// The number of output channels.
    pub fn outputs(&self) -> usize {
        self.matrix.outputs() / self.panels_per_output()
    }

    /// How many panels the sums of 16 output channels are made of: where half of the matrix is gates, two.
    fn panels_per_output(&self) -> usize {
        if self.then == Some(Then::Geglu) { 2 } else { 1 }
    }

    /// The rows of the matrix that some output channels are made of, by their panels.
    fn panels(&self, columns: &Range<usize>) -> impl ExactSizeIterator<Item = usize> + use<> {
        let (start, outputs) = (columns.start, self.outputs());
        let per_output = columns.len().div_ceil(LANES);
        (0..self.panels_per_output() * per_output)
            .map(move |at| at / per_output * outputs + start + at % per_output * LANES)
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

    /// As [`Product::panel`], as integers.
    pub fn integers<Q: Integer>(&self, first: usize, channels: Range<usize>, panel: &mut Panel<Q>) {
        self.matrix.integers(self.level, first, channels, panel);
    }

    /// The bias of outputs `first .. first + 16`, zeros where there is none.
    pub fn bias(&self, first: usize) -> Line {
        let mut line = Line::ZERO;
        if let Some(bias) = &self.bias {
            line.iter_mut().zip(&bias.values()[first..]).for_each(|(line, bias)| *line = *bias);
        }
        line
    }

    /// What it is computed in. Taps share the rows of neighbours, which a scale for each row does not suit.
    pub fn arithmetic(&self) -> Arithmetic {
        let fits = self.taps == 1 && self.channels().is_multiple_of(STEP);
        if fits { self.matrix.arithmetic() } else { Arithmetic::F32 }
    }

    /// What a run over `rows` rows allocates: panels for each thread, what rows are made into, sums, and where those go.
    pub fn scratch_bytes(&self, rows: usize, threads: usize) -> usize {
        let panels = threads * PANELS * RUN.max(self.longest_step()) * size_of::<Line>();
        let by_columns = threads > 1 && rows <= FEW_ROWS;
        let line = size_of::<&[f32]>();
        let (at_once, made, lines) = match by_columns {
            true => (rows, rows, rows * self.outputs().div_ceil(self.columns_of_thread(threads))),
            false => (rows.min(CHUNK_ROWS), threads * rows.min(CHUNK_ROWS), 0),
        };
        let sums = threads * PANELS * at_once.div_ceil(ROWS) * size_of::<Tile>();
        let integers = |each: usize| self.channels() * each + self.steps().count() * size_of::<f32>();
        let row = match self.arithmetic() {
            Arithmetic::F32 => self.taps * line,
            Arithmetic::I16 => integers(size_of::<i16>()),
            Arithmetic::I8 => integers(size_of::<i8>()),
        };
        panels + made * row + lines * line + sums
    }

    /// `output`: `[rows, outputs]`; `row(n, tap)` finds the inputs of row `n` at a tap.
    pub fn run<'a>(
        &self,
        output: &mut [f32],
        threads: &Threads,
        row: impl Fn(usize, usize) -> &'a [f32] + Sync + Send,
    ) {
        let alone = &Threads::new(1);
        match self.arithmetic() {
            Arithmetic::F32 => self.run_on(output, threads, |rows, _| Floats::find(self.taps, rows, &row)),
            Arithmetic::I16 => self.run_on(output, threads, |rows, all| {
                Integers::<i16>::quantise(self, rows, if all { threads } else { alone }, |at| row(at, 0))
            }),
            Arithmetic::I8 => self.run_on(output, threads, |rows, all| {
                Integers::<i8>::quantise(self, rows, if all { threads } else { alone }, |at| row(at, 0))
            }),
        }
    }

    /// `inputs(rows, all)` makes those of some rows, or of all at once.
    fn run_on<I: Inputs>(
        &self,
        output: &mut [f32],
        threads: &Threads,
        inputs: impl Fn(Range<usize>, bool) -> I + Sync + Send,
    ) {
        let outputs = self.outputs();
        let rows = output.len() / outputs;
        if rows > FEW_ROWS || threads.count() == 1 {
            threads.for_each_chunk(output, CHUNK_ROWS * outputs, |at, chunk| {
                let inputs = inputs(at * CHUNK_ROWS..at * CHUNK_ROWS + chunk.len() / outputs, false);
                let mut sums = Vec::new();
                let width = PANELS / self.panels_per_output() * LANES;
                for first in (0..outputs).step_by(width) {
                    let columns = first..outputs.min(first + width);
                    self.sum(columns.clone(), &inputs, &mut sums);
                    let lines = chunk.chunks_exact_mut(outputs).map(|line| &mut line[columns.clone()]);
                    put(&sums, inputs.rows(), lines);
                }
            });
        } else {
            self.run_by_columns(&inputs(0..rows, true), output, threads);
        }
    }

    /// Each thread makes some columns of all rows.
    fn run_by_columns(&self, inputs: &impl Inputs, output: &mut [f32], threads: &Threads) {
        let (outputs, width) = (self.outputs(), self.columns_of_thread(threads.count()));
        let mut parts: Vec<Vec<&mut [f32]>> =
            (0..outputs.div_ceil(width)).map(|_| Vec::with_capacity(inputs.rows())).collect();
        for line in output.chunks_exact_mut(outputs) {
            parts.iter_mut().zip(line.chunks_mut(width)).for_each(|(lines, part)| lines.push(part));
        }
        threads.for_each_chunk_with(&mut parts, 1, Vec::new, |at, parts, sums| {
            for lines in parts {
                self.sum(at * width..outputs.min((at + 1) * width), inputs, sums);
                put(sums, inputs.rows(), lines.iter_mut().map(|line| &mut **line));
            }
        });
    }

    /// As many as leave every thread something to do, and none much more than others.
    fn columns_of_thread(&self, threads: usize) -> usize {
        let most = PANELS / self.panels_per_output();
        (self.outputs().div_ceil(LANES) / (4 * threads)).clamp(1, most) * LANES
    }

    /// Some output channels of all rows: for 16 channels the sums of all rows, then those of the next 16. Gates follow.
    fn sum<I: Inputs>(&self, columns: Range<usize>, inputs: &I, sums: &mut Vec<Tile>) {
        let tiles = inputs.rows().div_ceil(ROWS);
        let channels = || self.panels(&columns);
        sums.clear();
        sums.reserve_exact(channels().len() * tiles);
        channels().for_each(|first| sums.extend(std::iter::repeat_n([self.bias(first); ROWS], tiles)));
        let mut panels: Vec<I::Panel> = channels().map(|_| I::Panel::default()).collect();
        let mut found = Vec::with_capacity(PASS_TILES.min(tiles));
        for (at, step) in self.steps().enumerate() {
            for (panel, first) in panels.iter_mut().zip(channels()) {
                inputs.fill(self, first, &step, panel);
            }
            for pass in (0..tiles).step_by(PASS_TILES) {
                let pass = pass..tiles.min(pass + PASS_TILES);
                for tap in step.taps.clone() {
                    found.clear();
                    found.extend(pass.clone().map(|tile| inputs.find((at, &step), tap, tile)));
                    for (panel, sums) in panels.iter().zip(sums.chunks_exact_mut(tiles)) {
                        let tiles = found.iter().copied().zip(&mut sums[pass.clone()]);
                        I::accumulate(self.level, &step, tap, panel, tiles);
                    }
                }
            }
        }
        match self.then {
            None => {}
            Some(Then::Activation(function)) => function.apply_to_lines(self.level, sums.as_flattened_mut()),
            Some(Then::Geglu) => {
                let (values, gates) =
                    sums.as_flattened_mut().split_at_mut(channels().len() / 2 * tiles * ROWS);
                gate_lines(self.level, values, gates);
            }
        }
    }

    /// A panel starts at a multiple of 4 inputs: taps of another length are taken all at once.
    pub fn longest_step(&self) -> usize {
        match self.arithmetic() {
            // Half as wide as floats, and no longer than their sums allow.
            Arithmetic::I16 => RUN_MAX,
            _ if self.channels().is_multiple_of(4) => RUN,
            _ => self.matrix.inputs(),
        }
    }

    /// All inputs, in the order in which they are multiplied.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        let (channels, run) = (self.channels(), self.longest_step());
        let taps_at_once = (run / channels).clamp(1, self.taps);
        // In even parts: a short one would be all loading and storing.
        let channels_at_once =
            channels.div_ceil(channels.div_ceil(run)).next_multiple_of(SCALE_RUN).min(channels);
        (0..self.taps).step_by(taps_at_once).flat_map(move |tap| {
            (0..channels).step_by(channels_at_once).map(move |channel| Step {
                taps: tap..(tap + taps_at_once).min(self.taps),
                channels: channel..(channel + channels_at_once).min(channels),
            })
        })
    }
}

/// Adds what [`Product::sum`] made of so many rows to what is where these belong.
fn put<'a>(sums: &[Tile], rows: usize, lines: impl Iterator<Item = &'a mut [f32]>) {
    let tiles = rows.div_ceil(ROWS);
    for (row, line) in lines.enumerate() {
        for (part, sums) in line.chunks_mut(LANES).zip(sums.chunks_exact(tiles)) {
            let sums = &sums[row / ROWS][row % ROWS].0;
            match part.as_chunks_mut::<LANES>() {
                // Of a length that the compiler knows.
                ([whole], _) => add(whole, sums),
                (_, part) => add(part, sums),
            }
        }
    }
}

#[inline(always)]
fn add(to: &mut [f32], sums: &[f32]) {
    to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
}
