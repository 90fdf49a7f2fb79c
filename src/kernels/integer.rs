//! Products of integers: six rows of quantised activations times a panel of `int8` weights.
//!
//! ```text
//! scale[r]   = max over k of |x[r][k]| / MAX                  a run of a few hundred channels
//! q[r][k]    = round(x[r][k] / scale[r])                     see quantise
//! acc[r][l] += scale[r] * weight_scale[l] * sum over k of q[r][k] * w[k][l]
//! ```
//! The sum is exact, in 32 bits, so all levels give the same bits, whatever instructions they have. `i16` activations have 11
//! bits, after which what `int8` weights lose is all that is lost; `i8` activations have 7.
//!
//! Where weights have a scale for every few inputs, `i8` has a sum for each of them. In `i16` there is room for another four
//! bits: weights are multiplied by the ratio of their scale to the largest one, and there is one sum.

use std::ops::Range;

use super::Level;
use super::dequantise::GROUP;
use super::level::Work;
use super::panel::{Arrange, Group, Panel, Stored};
use super::tile::{LANES, Line, ROWS, Tile};

/// Inputs that rows and panels are filled up to a multiple of.
pub const STEP: usize = 16;
/// The most inputs of a run: the sum of so many products of 11 and 11 bits fits 31.
pub const RUN_MAX: usize = 512;
/// The sums of one tile.
pub type Sums = [[i32; LANES]; ROWS];

/// A type that activations are quantised to, and what products with it need.
pub trait Integer: Copy + Default + PartialEq + Into<i32> + std::fmt::Debug + Send + Sync + 'static {
    /// The largest magnitude that is used.
    const MAX: i16;
    /// Whether weights are multiplied by the ratios of their scales.
    const FOLDS: bool;

    /// A whole number from `-MAX` to `MAX`.
    fn of(whole: i32) -> Self;

    /// Where a weight lies in a [`Group`] in plain order.
    fn place(lane: usize, input: usize) -> usize;

    /// Puts stored weights into the order of the level. What they do not reach becomes zeros.
    fn arrange(level: Level, stored: Stored, panel: &mut [Group<Self>]) {
        level.run(Arrange { stored, panel });
    }

    /// `sums[r][l] = sum over k of rows[r][k] * panel[k][l]`; rows are as long as the panel.
    fn multiply(level: Level, rows: &[&[Self]; ROWS], panel: &[Group<Self>]) -> Sums {
        level.run(Multiply { rows, panel })
    }

    /// Adds such sums, multiplied by their scales and those of the outputs, to some tiles.
    fn accumulate<'a, 't>(
        level: Level,
        panel: &[Group<Self>],
        outputs: &Line,
        tiles: impl Iterator<Item = (Rows<'a, Self>, &'t mut Tile)>,
    ) {
        for (rows, acc) in tiles {
            rescale(level, &Self::multiply(level, &rows.values, panel), rows.scales(outputs), acc);
        }
    }
}

/// Quantised inputs of one tile.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, Q> {
    /// The numbers.
    pub values: [&'a [Q]; ROWS],
    /// The scale of each row.
    pub scales: [f32; ROWS],
}

impl<'a, Q> Rows<'a, Q> {
    fn scales<'s>(&'s self, outputs: &'s Line) -> Scales<'s> {
        Scales { rows: &self.scales, outputs }
    }

    /// Some of the inputs.
    fn part(&self, inputs: Range<usize>) -> Self {
        Self { values: self.values.map(|row| &row[inputs.clone()]), scales: self.scales }
    }
}

/// What the sums of a tile are multiplied by.
#[derive(Debug, Clone, Copy)]
pub struct Scales<'a> {
    /// That of each row.
    pub rows: &'a [f32; ROWS],
    /// That of each output.
    pub outputs: &'a Line,
}

impl Integer for i8 {
    const MAX: i16 = 127;
    const FOLDS: bool = false;

    #[inline(always)]
    fn of(whole: i32) -> Self {
        whole as Self
    }

    #[inline(always)]
    fn place(lane: usize, input: usize) -> usize {
        lane * GROUP + input
    }

    #[cfg(target_arch = "aarch64")]
    fn arrange(level: Level, stored: Stored, panel: &mut [Group<Self>]) {
        level.run(Arrange { stored, panel });
        if let Level::I8mm(witness) = level {
            super::i8mm::arrange(witness, panel);
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn multiply(level: Level, rows: &[&[Self]; ROWS], panel: &[Group<Self>]) -> Sums {
        match level {
            Level::Dotprod(witness) => super::dotprod::multiply(witness, rows, panel),
            Level::I8mm(witness) => super::i8mm::multiply(witness, rows, panel),
            Level::Neon(witness) => super::neon::i8_multiply(witness, rows, panel),
            Level::Scalar => level.run(Multiply { rows, panel }),
        }
    }
}

impl Integer for i16 {
    const MAX: i16 = (1 << 11) - 1;
    const FOLDS: bool = true;

    #[inline(always)]
    fn of(whole: i32) -> Self {
        whole as Self
    }

    /// Pairs of inputs side by side.
    #[inline(always)]
    fn place(lane: usize, input: usize) -> usize {
        input / 2 * 2 * LANES + lane * 2 + input % 2
    }

    #[cfg(target_arch = "x86_64")]
    fn arrange(level: Level, stored: Stored, panel: &mut [Group<Self>]) {
        match level.vectors() {
            super::level::Vectors::Avx2(witness) => super::avx2::i16_arrange(witness, stored, panel),
            super::level::Vectors::Avx512(witness) => super::avx2::i16_arrange(witness.avx2(), stored, panel),
            super::level::Vectors::Scalar => level.run(Arrange { stored, panel }),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn accumulate<'a, 't>(
        level: Level,
        panel: &[Group<Self>],
        outputs: &Line,
        tiles: impl Iterator<Item = (Rows<'a, Self>, &'t mut Tile)>,
    ) {
        match level {
            Level::Avx512(witness) => super::avx512::i16_accumulate(witness, panel, outputs, tiles),
            _ => tiles.for_each(|(rows, acc)| {
                let scales = rows.scales(outputs);
                match level {
                    Level::Avx2(avx2) => super::avx2::i16_accumulate(avx2, &rows.values, panel, scales, acc),
                    Level::Vnni(vnni) => super::vnni::i16_accumulate(vnni, &rows.values, panel, scales, acc),
                    _ => rescale(level, &Self::multiply(level, &rows.values, panel), scales, acc),
                }
            }),
        }
    }
}

/// Adds the products of quantised rows with a panel to some tiles.
///
/// # Panics
/// If a row is not as long as the panel, or a run of the panel longer than [`RUN_MAX`].
#[inline]
pub fn accumulate<'a, 't, Q: Integer>(
    level: Level,
    panel: &Panel<Q>,
    tiles: impl Iterator<Item = (Rows<'a, Q>, &'t mut Tile)>,
) {
    let run = panel.run.min(panel.groups.len()).max(1);
    assert!(run * GROUP <= RUN_MAX);
    let tiles = tiles.inspect(|(rows, _)| {
        assert!(rows.values.iter().all(|row| row.len() == panel.groups.len() * GROUP));
    });
    if let [outputs] = &panel.scales[..] {
        return Q::accumulate(level, &panel.groups, outputs, tiles);
    }
    for (rows, acc) in tiles {
        for ((at, groups), outputs) in panel.groups.chunks(run).enumerate().zip(&panel.scales) {
            let first = at * run * GROUP;
            let rows = rows.part(first..first + groups.len() * GROUP);
            Q::accumulate(level, groups, outputs, std::iter::once((rows, &mut *acc)));
        }
    }
}

/// Adds sums, multiplied by their scales.
fn rescale(level: Level, sums: &Sums, scales: Scales, acc: &mut Tile) {
    level.run(Rescale { sums, scales, acc });
}

struct Rescale<'a> {
    sums: &'a Sums,
    scales: Scales<'a>,
    acc: &'a mut Tile,
}

impl Work for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((sums, &row_scale), acc) in self.sums.iter().zip(self.scales.rows).zip(self.acc) {
            for ((&sum, &scale), acc) in sums.iter().zip(&self.scales.outputs.0).zip(&mut acc.0) {
                *acc = (sum as f32 * scale).mul_add(row_scale, *acc);
            }
        }
    }
}

struct Multiply<'a, Q> {
    rows: &'a [&'a [Q]; ROWS],
    panel: &'a [Group<Q>],
}

impl<Q: Integer> Work for Multiply<'_, Q> {
    type Output = Sums;

    #[inline(always)]
    fn run(self) -> Sums {
        let mut sums = [[0; LANES]; ROWS];
        for (row, sums) in self.rows.iter().zip(&mut sums) {
            for (inputs, group) in row.as_chunks::<GROUP>().0.iter().zip(self.panel) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    for (input, &x) in inputs.iter().enumerate() {
                        *sum += x.into() * group.0[Q::place(lane, input)].into();
                    }
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::super::panel::StoredGroup;
    use super::*;

    /// Whole numbers from `-most` to `most` that look random; the first ones are the extremes.
    fn whole(len: usize, most: i32, seed: u32) -> Vec<i32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as i32 % (2 * most + 1) - most
        };
        (0..len).map(|at| if at < 3 { [-most, most, 0][at] } else { next() }).collect()
    }

    fn stored(weights: &[i32], outputs: std::ops::Range<usize>, inputs: usize) -> Vec<StoredGroup> {
        let weight = |o: usize, k: usize| if k < inputs { weights[o * inputs + k] as i8 } else { 0 };
        let group =
            |g: usize| std::array::from_fn(|at| weight(outputs.start + at / GROUP, g * GROUP + at % GROUP));
        (0..inputs.div_ceil(GROUP)).map(group).collect()
    }

    fn scale(at: usize, lane: usize) -> f32 {
        0.25 + ((at * 7 + lane * 3) % 16) as f32
    }

    fn panel<Q: Integer>(level: Level, weights: &[i32], inputs: usize, run: usize) -> Panel<Q> {
        let groups = vec![Group([Q::of(1); GROUP * LANES]); inputs.next_multiple_of(STEP) / GROUP];
        let scales =
            (0..groups.len().div_ceil(run)).map(|at| Line(std::array::from_fn(|lane| scale(at, lane))));
        let mut panel = Panel::default();
        (panel.groups, panel.scales, panel.run) = (groups, scales.collect(), run);
        panel.fill(level, &stored(weights, 0..8, inputs), &stored(weights, 8..16, inputs));
        panel
    }

    /// The definition, with nothing of the code above but the formulas.
    fn expected<Q: Integer>(
        rows: &[Vec<i32>],
        weights: &[i32],
        inputs: usize,
        run: usize,
        row_scales: &[f32],
    ) -> Tile {
        let runs = inputs.next_multiple_of(STEP).div_ceil(run * GROUP);
        let folds = Q::FOLDS && runs > 1;
        let sums_of = if folds { 1 } else { runs };
        let mut acc = [Line([1.5; LANES]); ROWS];
        for (r, lane) in (0..ROWS).flat_map(|r| (0..LANES).map(move |lane| (r, lane))) {
            let largest = (0..runs).map(|at| scale(at, lane)).fold(0.0, f32::max);
            let mut sums = vec![0; sums_of];
            for k in 0..inputs {
                let at = k / (run * GROUP);
                let ratio = f64::from((scale(at, lane) / largest * 32_767.0 + 0.5) as i16);
                let weight = weights[lane * inputs + k];
                // Half up, as the instruction does.
                let weight = if folds {
                    (f64::from(16 * weight) * ratio / 32_768.0 + 0.5).floor() as i32
                } else {
                    weight
                };
                sums[if folds { 0 } else { at }] += rows[r][k] * weight;
            }
            for (at, sum) in sums.into_iter().enumerate() {
                let scale = if folds { largest * (32_768.0 / (32_767.0 * 16.0)) } else { scale(at, lane) };
                acc[r][lane] = (sum as f32 * scale).mul_add(row_scales[r], acc[r][lane]);
            }
        }
        acc
    }

    fn every_level_gives_the_same_bits<Q: Integer>() {
        let row_scales = [1.0, 0.5, 1e-3, -2.0, 0.0, 7.0];
        for level in Level::available() {
            for (inputs, run) in
                (1..70).chain([320, 512]).flat_map(|inputs| [(inputs, 8), (inputs, RUN_MAX / GROUP)])
            {
                let weights = whole(LANES * inputs, 127, 5);
                let rows: Vec<Vec<i32>> = (0..ROWS).map(|r| whole(inputs, Q::MAX.into(), r as u32)).collect();
                let panel = panel::<Q>(level, &weights, inputs, run);
                let expected = expected::<Q>(&rows, &weights, inputs, run, &row_scales);
                // Rows start anywhere.
                for start in [0, 1, 3] {
                    let zeros = inputs.next_multiple_of(STEP) - inputs;
                    let typed = rows.iter().map(|row| {
                        let front = std::iter::repeat_n(9, start);
                        let all = front.chain(row.iter().copied()).chain(std::iter::repeat_n(0, zeros));
                        all.map(Q::of).collect()
                    });
                    let typed: Vec<Vec<Q>> = typed.collect();
                    let values: [&[Q]; ROWS] = std::array::from_fn(|r| &typed[r][start..]);
                    // Some levels take two or three tiles together; each tile begins with another row.
                    for count in 1..8 {
                        let mut tiles = vec![[Line([1.5; LANES]); ROWS]; count];
                        let turned = (0..).map(|at| Rows {
                            values: std::array::from_fn(|r| values[(at + r) % ROWS]),
                            scales: std::array::from_fn(|r| row_scales[(at + r) % ROWS]),
                        });
                        accumulate(level, &panel, turned.zip(&mut tiles));
                        for (at, tile) in tiles.into_iter().enumerate() {
                            let expected: Tile = std::array::from_fn(|r| expected[(at + r) % ROWS]);
                            assert_eq!(
                                tile, expected,
                                "{level:?}, {inputs} inputs in runs of {run}, tile {at} of {count}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_of_i8_are_the_same_at_every_level() {
        every_level_gives_the_same_bits::<i8>();
    }

    #[test]
    fn products_of_i16_are_the_same_at_every_level() {
        every_level_gives_the_same_bits::<i16>();
    }

    /// All factors as large as they get, so that a sum that does not fit would show.
    #[test]
    fn the_longest_run_of_the_largest_numbers_fits() {
        let inputs = RUN_MAX;
        for level in Level::available() {
            let weights = vec![-127; LANES * inputs];
            let (whole, folded) = (
                panel::<i16>(level, &weights, inputs, RUN_MAX / GROUP),
                panel::<i16>(level, &weights, inputs, 64),
            );
            let row = vec![<i16 as Integer>::MAX; inputs];
            let sum = |panel| {
                let mut acc = [Line::ZERO; ROWS];
                let rows = Rows { values: [&row[..]; ROWS], scales: [1.0; ROWS] };
                accumulate(level, panel, std::iter::once((rows, &mut acc)));
                acc[0][0]
            };
            assert_eq!(sum(&whole), (-127 * 2047 * 512) as f32 * scale(0, 0), "{level:?}");
            assert!(sum(&folded) < 0.0, "{level:?}");
        }
    }
}
