//! A 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3), which takes a quarter of the multiplications.
//!
//! ```text
//! for a band of tiles of 4x4 outputs
//!     turn the inputs of each tile                    V[six tiles][36][tile][channels]
//!     for 16 output channels
//!         dequantise nine taps, turn them             U[36][channels][16]
//!         36 times, for a run of channels
//!             for six tiles at a time
//!                 M[tiles][16] += V * U
//!         turn M back, add the bias
//! ```
//! What a place of some tiles is turned into lies in one piece, so that it is read as a stream, and stays in a second-level
//! cache while a panel passes over it. Weights are turned anew for every band, so a band has enough tiles for that not to
//! matter.
//!
//! Where there are enough bands each thread takes its own; else threads share out the tiles of a band, then its output
//! channels, and bring those together. What is computed does not depend on how many there are.

use std::ops::Range;

use super::product::Product;
use crate::engine::threads::Threads;
use crate::kernels::winograd::{self, INPUTS, OUTPUTS, PLACES, STEP, TAPS};
use crate::kernels::{LANES, Line, ROWS, tile};

/// Channels whose weights are turned together: their taps are 36 KiB.
const TURN: usize = 64;
/// With fewer tiles than this, turned weights are used while they are in a second-level cache.
const MANY_TILES: usize = 32;
/// Channels that are multiplied together: a panel of them is 20 KiB of a first-level cache.
const RUN: usize = 320;
/// Tiles of a band, if that is not less than a row of them.
const TILES: usize = 64;
/// What follows a run of numbers that would otherwise be a power of two long, so that neighbours do not fall into the same
/// set of a cache.
const GAP: usize = LANES;
/// What turning weights costs, in multiplications of a number by a panel.
const TURNING: usize = 140;

/// 16 output channels of a tile.
type Tile = [Line; OUTPUTS * OUTPUTS];

/// What one thread works with.
struct Scratch {
    taps: Vec<Line>,
    /// `[36][channels]`, and a gap.
    weights: Vec<Line>,
    /// `[36][tiles]`, and a gap.
    sums: Vec<Line>,
}

impl Scratch {
    /// For bands of a convolution.
    fn new(of: &Winograd) -> Self {
        let (weights, sums) = of.scratch_lines(of.tiles_of_band());
        let [taps, weights, sums] = [TAPS * TAPS * TURN, weights, sums].map(|len| vec![Line::ZERO; len]);
        Self { taps, weights, sums }
    }
}

/// A convolution of some rows of maps.
pub struct Winograd<'a> {
    /// The weights.
    pub product: &'a Product,
    /// How many maps there are.
    pub pictures: usize,
    /// Output rows of each.
    pub down: usize,
    /// Outputs of a row.
    pub across: usize,
}

impl Winograd<'_> {
    /// Whether this is cheaper than multiplying every tap.
    pub fn pays(&self) -> bool {
        let direct = TAPS * TAPS * self.pictures * self.down * self.across;
        self.product.channels().is_multiple_of(STEP) && self.macs_per_channel() < direct
    }

    /// Multiplications for each input and output channel, or what takes as long.
    pub fn macs_per_channel(&self) -> usize {
        let tiles = self.pictures * self.tiles_down() * self.tiles_across();
        PLACES * tiles.next_multiple_of(ROWS) + tiles.div_ceil(self.tiles_of_band()) * TURNING
    }

    /// What [`Winograd::run`] allocates.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        let tiles = self.tiles_of_band();
        let turned = tiles.div_ceil(ROWS) * self.six_len() * size_of::<f32>();
        let (weights, sums) = self.scratch_lines(tiles);
        let lines = threads * (TAPS * TAPS * TURN + weights + sums);
        if self.is_by_bands(threads) {
            return threads * turned + lines * size_of::<Line>();
        }
        let blocks = self.product.outputs().div_ceil(LANES) * tiles * OUTPUTS * OUTPUTS;
        turned + (lines + blocks) * size_of::<Line>()
    }

    /// `output`: `[pictures, down, across, outputs]`; `pixel(picture, y, x)` is what the first tap of that output reads, and
    /// is asked beyond the last output for what the other taps read.
    pub fn run<'b>(
        &self,
        output: &mut [f32],
        threads: &Threads,
        pixel: impl Fn(usize, usize, usize) -> &'b [f32] + Sync + Send,
    ) {
        let row = self.across * self.product.outputs();
        let (rows, rows_of_band) = (self.rows_of_tiles(), self.rows_of_band());
        let turned = || vec![0.0; self.tiles_of_band().div_ceil(ROWS) * self.six_len()];
        if self.is_by_bands(threads.count()) {
            let (alone, len) = (&Threads::new(1), rows_of_band * OUTPUTS * row);
            let scratch = || (turned(), Scratch::new(self));
            threads.for_each_chunk_with(output, len, scratch, |at, output, (turned, scratch)| {
                let band = at * rows_of_band..rows.min((at + 1) * rows_of_band);
                let turned = self.turn_inputs(&band, turned, alone, &pixel);
                for first in (0..self.product.outputs()).step_by(LANES) {
                    self.columns(first, turned, band.len() * self.tiles_across(), scratch, |at, tile| {
                        self.put(first, at, tile, output);
                    });
                }
            });
            return;
        }
        let (mut turned, mut rest) = (turned(), output);
        for first in (0..rows).step_by(rows_of_band) {
            let band = first..rows.min(first + rows_of_band);
            let tiles = band.len() * self.tiles_across();
            let turned = self.turn_inputs(&band, &mut turned, threads, &pixel);
            let len = tiles * OUTPUTS * OUTPUTS;
            let mut blocks = vec![Line::ZERO; self.product.outputs().div_ceil(LANES) * len];
            let scratch = || Scratch::new(self);
            threads.for_each_chunk_with(&mut blocks, len, scratch, |at, block, scratch| {
                let block: &mut [Tile] = block.as_chunks_mut().0;
                self.columns(at * LANES, turned, tiles, scratch, |at, tile| block[at] = *tile);
            });
            let count: usize = band.clone().map(|tiles| self.rows_of(tiles)).sum();
            let (done, others) = std::mem::take(&mut rest).split_at_mut(count * row);
            rest = others;
            self.gather(&band, &blocks, done, threads);
        }
    }

    /// Whether each thread works on bands of its own: if all find about as much to do, and every band makes equally many
    /// rows.
    fn is_by_bands(&self, threads: usize) -> bool {
        let bands = self.rows_of_tiles().div_ceil(self.rows_of_band());
        let idle = bands.next_multiple_of(threads) - bands;
        idle <= bands / 8 && (self.pictures == 1 || self.down.is_multiple_of(OUTPUTS))
    }

    fn rows_of_tiles(&self) -> usize {
        self.pictures * self.tiles_down()
    }

    fn tiles_down(&self) -> usize {
        self.down.div_ceil(OUTPUTS)
    }

    fn tiles_across(&self) -> usize {
        self.across.div_ceil(OUTPUTS)
    }

    fn rows_of_band(&self) -> usize {
        (TILES / self.tiles_across()).clamp(1, self.rows_of_tiles())
    }

    fn tiles_of_band(&self) -> usize {
        self.rows_of_band() * self.tiles_across()
    }

    /// Numbers from a tile to the next, at one place.
    fn row_len(&self) -> usize {
        self.product.channels() + GAP
    }

    /// Numbers from a place to the next, among six tiles.
    fn place_len(&self) -> usize {
        ROWS * self.row_len() + GAP
    }

    /// Numbers that six tiles are turned into.
    fn six_len(&self) -> usize {
        PLACES * self.place_len()
    }

    /// The picture of a tile, and its first output.
    fn place(&self, row: usize, column: usize) -> (usize, usize, usize) {
        (row / self.tiles_down(), row % self.tiles_down() * OUTPUTS, column * OUTPUTS)
    }

    /// How many output rows a row of tiles makes.
    fn rows_of(&self, row: usize) -> usize {
        OUTPUTS.min(self.down - row % self.tiles_down() * OUTPUTS)
    }

    /// Turns the inputs of a band; those of as many tiles as it has.
    fn turn_inputs<'b, 't>(
        &self,
        band: &Range<usize>,
        turned: &'t mut [f32],
        threads: &Threads,
        pixel: &(impl Fn(usize, usize, usize) -> &'b [f32] + Sync + Send),
    ) -> &'t [f32] {
        let tiles = band.len() * self.tiles_across();
        let turned = &mut turned[..tiles.div_ceil(ROWS) * self.six_len()];
        threads.for_each_chunk(turned, self.six_len(), |at, six| {
            for (tile, at) in (at * ROWS..tiles.min((at + 1) * ROWS)).enumerate() {
                let (picture, y, x) =
                    self.place(band.start + at / self.tiles_across(), at % self.tiles_across());
                let pixels = std::array::from_fn(|i| pixel(picture, y + i / INPUTS, x + i % INPUTS));
                let turned = &mut six[tile * self.row_len()..];
                winograd::input(self.product.level(), &pixels, turned, self.place_len());
            }
        });
        turned
    }

    /// Output channels `first .. first + 16` of each tile of a band, for `put`.
    fn columns(
        &self,
        first: usize,
        turned: &[f32],
        tiles: usize,
        scratch: &mut Scratch,
        mut put: impl FnMut(usize, &Tile),
    ) {
        let (level, channels) = (self.product.level(), self.product.channels());
        let run = self.channels_at_once(tiles);
        let Scratch { taps, weights, sums } = scratch;
        let stride = sums.len() / PLACES;
        for start in (0..channels).step_by(run) {
            let len = run.min(channels - start);
            self.turn_weights(first, start..start + len, taps, weights);
            let places = weights.chunks_exact(weights.len() / PLACES).zip(sums.chunks_exact_mut(stride));
            for (place, (panel, sums)) in places.enumerate() {
                let sums = &mut sums.as_chunks_mut().0[..tiles.div_ceil(ROWS)];
                if start == 0 {
                    sums.fill([Line::ZERO; ROWS]);
                }
                self.multiply(place, start, turned, &panel[..len], sums);
            }
        }
        let bias = self.product.bias(first);
        let mut outputs = [Line::ZERO; OUTPUTS * OUTPUTS];
        for at in 0..tiles {
            winograd::output(level, &sums[at..], stride, &bias, &mut outputs);
            put(at, &outputs);
        }
    }

    /// Adds 16 channels of a tile to what is where they belong among the rows of a band.
    fn put(&self, first: usize, at: usize, tile: &Tile, rows: &mut [f32]) {
        let (outputs, row) = (self.product.outputs(), self.across * self.product.outputs());
        let (top, left) = (at / self.tiles_across() * OUTPUTS, at % self.tiles_across() * OUTPUTS);
        let width = LANES.min(outputs - first);
        for (row, line) in rows.chunks_exact_mut(row).skip(top).zip(tile.as_chunks::<OUTPUTS>().0) {
            for (pixel, channels) in row.chunks_exact_mut(outputs).skip(left).zip(line) {
                pixel[first..first + width].iter_mut().zip(&channels.0).for_each(|(to, x)| *to += x);
            }
        }
    }

    /// Weights of outputs `first .. first + 16` for some channels: `[36][channels + 1]`.
    fn turn_weights(&self, first: usize, channels: Range<usize>, taps: &mut [Line], weights: &mut [Line]) {
        let (of_tap, stride) = (self.product.channels(), weights.len() / PLACES);
        for start in channels.clone().step_by(TURN) {
            let len = TURN.min(channels.end - start);
            for (tap, panel) in taps.chunks_exact_mut(TURN).enumerate() {
                self.product.panel(first, tap * of_tap + start, &mut panel[..len]);
            }
            let nine = std::array::from_fn(|tap| &taps[tap * TURN..][..len]);
            winograd::weights(self.product.level(), &nine, &mut weights[start - channels.start..], stride);
        }
    }

    /// Adds the products of the channels from `start` on at one place, of six tiles and six tiles more.
    fn multiply(&self, place: usize, start: usize, turned: &[f32], panel: &[Line], sums: &mut [tile::Tile]) {
        let run = panel.len().div_ceil(panel.len().div_ceil(RUN));
        for (panel, start) in panel.chunks(run).zip((start..).step_by(run)) {
            // Not by `map`: what is done for an item would then be a call for each of them.
            let mut sixes = turned.chunks_exact(self.six_len()).zip(&mut *sums);
            let tiles = std::iter::from_fn(|| {
                let (six, sums) = sixes.next()?;
                let tiles = &six[place * self.place_len() + start..];
                Some((std::array::from_fn(|r| &tiles[r * self.row_len()..][..panel.len()]), sums))
            });
            tile::accumulate(self.product.level(), panel, tiles);
        }
    }

    /// Channels whose weights are turned before they are multiplied: all, if that is done for many tiles.
    fn channels_at_once(&self, tiles: usize) -> usize {
        let runs = if tiles < MANY_TILES { self.product.channels().div_ceil(TURN) } else { 1 };
        self.product.channels().div_ceil(runs).next_multiple_of(STEP)
    }

    /// Lines of turned weights and of sums.
    fn scratch_lines(&self, tiles: usize) -> (usize, usize) {
        (PLACES * (self.channels_at_once(tiles) + 1), PLACES * (tiles.next_multiple_of(ROWS) + 1))
    }

    /// Brings the blocks of a band together and adds them to rows.
    fn gather(&self, band: &Range<usize>, blocks: &[Line], output: &mut [f32], threads: &Threads) {
        let outputs = self.product.outputs();
        let block_len = band.len() * self.tiles_across() * OUTPUTS * OUTPUTS;
        // Where the rows of a band start: it may hold the last, shorter tiles of a picture.
        let starts: Vec<usize> = band
            .clone()
            .enumerate()
            .flat_map(|(at, row)| {
                (0..self.rows_of(row))
                    .map(move |y| at * self.tiles_across() * OUTPUTS * OUTPUTS + y * OUTPUTS)
            })
            .collect();
        threads.for_each_item(output, self.across * outputs, |row, line| {
            for (x, pixel) in line.chunks_exact_mut(outputs).enumerate() {
                let at = starts[row] + x / OUTPUTS * OUTPUTS * OUTPUTS + x % OUTPUTS;
                for (block, channels) in pixel.chunks_mut(LANES).enumerate() {
                    channels.iter_mut().zip(&blocks[block * block_len + at].0).for_each(|(to, x)| *to += x);
                }
            }
        });
    }
}
