//! The inputs of a product, made ready to be multiplied: floats as they lie, or integers.

use std::ops::Range;

use super::product::{Product, Step};
use crate::engine::threads::Threads;
use crate::kernels::integer::{self, Integer};
use crate::kernels::panel::Panel;
use crate::kernels::quantise::quantise;
use crate::kernels::tile::{self, Tile};
use crate::kernels::{Level, Line, ROWS};

/// The most rows that one thread quantises at a time.
const ROWS_AT_ONCE: usize = 64;

/// The inputs of some rows.
pub trait Inputs: Sync {
    /// What weights of 16 output channels are put into.
    type Panel: Default;
    /// What is multiplied with a panel: a step's inputs of six rows, at one tap.
    type Rows<'a>: Copy
    where
        Self: 'a;

    /// How many rows there are.
    fn rows(&self) -> usize;

    /// Puts the weights of 16 output channels from `first` on into a panel.
    fn fill(&self, product: &Product, first: usize, step: &Step, panel: &mut Self::Panel);

    /// The inputs of a tile at one tap of a step, which comes with its number; rows beyond the last one are the last again.
    fn find(&self, step: (usize, &Step), tap: usize, tile: usize) -> Self::Rows<'_>;

    /// Adds the products of rows at one tap of a step with a panel to the sums of their tiles.
    fn accumulate<'a, 't>(
        level: Level,
        step: &Step,
        tap: usize,
        panel: &Self::Panel,
        tiles: impl Iterator<Item = (Self::Rows<'a>, &'t mut Tile)>,
    ) where
        Self: 'a;
}

/// Rows where they lie: those at the first tap, then those at the second, and so on. Found once, as every panel needs
/// them.
pub struct Floats<'a> {
    rows: Vec<&'a [f32]>,
    taps: usize,
}

impl<'a> Floats<'a> {
    /// Those that `row` finds for each row and tap.
    pub fn find(taps: usize, rows: Range<usize>, row: impl Fn(usize, usize) -> &'a [f32]) -> Self {
        let mut found = Vec::with_capacity(taps * rows.len());
        (0..taps).for_each(|tap| found.extend(rows.clone().map(|at| row(at, tap))));
        Self { rows: found, taps }
    }
}

impl Inputs for Floats<'_> {
    type Panel = Vec<Line>;
    type Rows<'a>
        = tile::Rows<'a>
    where
        Self: 'a;

    fn rows(&self) -> usize {
        self.rows.len() / self.taps
    }

    fn fill(&self, product: &Product, first: usize, step: &Step, panel: &mut Vec<Line>) {
        let channels = product.channels();
        panel.reserve_exact(product.longest_step());
        panel.resize((step.taps.len() - 1) * channels + step.channels.len(), Line::ZERO);
        product.panel(first, step.taps.start * channels + step.channels.start, panel);
    }

    fn find(&self, (_, step): (usize, &Step), tap: usize, tile: usize) -> tile::Rows<'_> {
        let at_tap = &self.rows[tap * self.rows()..][..self.rows()];
        let row = |r: usize| at_tap[(tile * ROWS + r).min(at_tap.len() - 1)];
        std::array::from_fn(|r| &row(r)[step.channels.clone()])
    }

    #[inline]
    fn accumulate<'a, 't>(
        level: Level,
        step: &Step,
        tap: usize,
        panel: &Vec<Line>,
        tiles: impl Iterator<Item = (tile::Rows<'a>, &'t mut Tile)>,
    ) where
        Self: 'a,
    {
        let len = step.channels.len();
        tile::accumulate(level, &panel[(tap - step.taps.start) * len..][..len], tiles);
    }
}

/// Rows of integers, with a scale for each step of a row; of a product that has one tap.
pub struct Integers<Q> {
    /// `[rows][channels]`.
    values: Vec<Q>,
    /// `[rows][steps]`.
    scales: Vec<f32>,
    channels: usize,
    steps: usize,
}

/// A row of [`Integers`] in the making.
struct Row<'a, Q> {
    values: &'a mut [Q],
    scales: &'a mut [f32],
}

impl<Q: Integer> Integers<Q> {
    /// Those nearest to what `row` finds for each row.
    pub fn quantise<'a>(
        product: &Product,
        rows: Range<usize>,
        threads: &Threads,
        row: impl Fn(usize) -> &'a [f32] + Sync + Send,
    ) -> Self {
        let (channels, steps) = (product.channels(), product.steps().count());
        let mut values = vec![Q::default(); rows.len() * channels];
        let mut scales = vec![0.0; rows.len() * steps];
        let made = values.chunks_exact_mut(channels).zip(scales.chunks_exact_mut(steps));
        let mut made: Vec<Row<Q>> = made.map(|(values, scales)| Row { values, scales }).collect();
        let rows_at_once = threads.share(made.len(), ROWS_AT_ONCE);
        threads.for_each_chunk(&mut made, rows_at_once, |at, made| {
            for (at, made) in (rows.start + at * rows_at_once..).zip(made) {
                let x = row(at);
                for (step, scale) in product.steps().zip(&mut *made.scales) {
                    let out = &mut made.values[step.channels.clone()];
                    *scale = quantise(product.level(), &x[step.channels], out);
                }
            }
        });
        Self { values, scales, channels, steps }
    }
}

impl<Q: Integer> Inputs for Integers<Q> {
    type Panel = Panel<Q>;
    type Rows<'a> = integer::Rows<'a, Q>;

    fn rows(&self) -> usize {
        self.values.len() / self.channels
    }

    fn fill(&self, product: &Product, first: usize, step: &Step, panel: &mut Panel<Q>) {
        product.integers(first, step.channels.clone(), panel);
    }

    fn find(&self, (at, step): (usize, &Step), _: usize, tile: usize) -> integer::Rows<'_, Q> {
        let row = |r: usize| (tile * ROWS + r).min(self.rows() - 1);
        let values = |r: usize| &self.values[row(r) * self.channels..][step.channels.clone()];
        let scales = std::array::from_fn(|r| self.scales[row(r) * self.steps + at]);
        integer::Rows { values: std::array::from_fn(values), scales }
    }

    #[inline]
    fn accumulate<'a, 't>(
        level: Level,
        _: &Step,
        _: usize,
        panel: &Panel<Q>,
        tiles: impl Iterator<Item = (integer::Rows<'a, Q>, &'t mut Tile)>,
    ) {
        integer::accumulate(level, panel, tiles);
    }
}
