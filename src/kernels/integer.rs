//! Products of integers: six rows of quantised activations times a panel of `int8` weights.
//!
//! ```text
//! scale[r]   = max over k of |x[r][k]| / MAX                  a run of a few hundred channels
//! q[r][k]    = round(x[r][k] / scale[r])                     see quantise
//! acc[r][l] += scale[r] * weight_scale[l] * sum over k of q[r][k] * w[k][l]
//! ```
//! The sum is exact, in 32 bits; where weights have a scale for every few inputs, there is a sum for each of them. So all
//! levels give the same bits, whatever instructions they have. `i16` activations have 14 bits, after which what `int8`
//! weights lose is all that is lost; `i8` activations have 7.

use super::Level;
use super::dequantise::{BLOCK, GROUP};
use super::level::Work;
use super::tile::{LANES, Line, ROWS, Tile};

/// Inputs that rows and panels are filled up to a multiple of.
pub const STEP: usize = 16;
/// The most inputs of a run: the sum of so many products of 14 and 7 bits fits 31.
pub const RUN_MAX: usize = 1024;

/// Weights of 4 inputs of 16 output channels, in the order that a level wants them in.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Group<Q>(pub [Q; GROUP * LANES]);

impl<Q: Integer> Group<Q> {
    /// Zeros.
    pub fn zeros() -> Self {
        Self([Q::default(); GROUP * LANES])
    }
}

/// The sums of one tile.
pub type Sums = [[i32; LANES]; ROWS];

/// A type that activations are quantised to, and what products with it need.
pub trait Integer: Copy + Default + PartialEq + Into<i32> + std::fmt::Debug + Send + Sync + 'static {
    /// The largest magnitude that is used.
    const MAX: i16;

    /// A whole number from `-MAX` to `MAX`.
    fn of(whole: i32) -> Self;

    /// Where a weight lies in a [`Group`] in plain order.
    fn place(lane: usize, input: usize) -> usize;

    /// Puts stored weights, 8 outputs x 4 inputs in each group, into the order of the level: `low` are outputs 0 to 7,
    /// `high` 8 to 15. What they do not reach becomes zeros.
    fn arrange(level: Level, low: &[StoredGroup], high: &[StoredGroup], panel: &mut [Group<Self>]) {
        level.run(Arrange { low, high, panel });
    }

    /// `sums[r][l] = sum over k of rows[r][k] * panel[k][l]`; rows are as long as the panel.
    fn multiply(level: Level, rows: &[&[Self]; ROWS], panel: &[Group<Self>]) -> Sums {
        level.run(Multiply { rows, panel })
    }
}

/// 8 outputs x 4 inputs as they lie in the file.
pub type StoredGroup = [i8; BLOCK * GROUP];

impl Integer for i8 {
    const MAX: i16 = 127;

    #[inline(always)]
    fn of(whole: i32) -> Self {
        whole as Self
    }

    #[inline(always)]
    fn place(lane: usize, input: usize) -> usize {
        lane * GROUP + input
    }

    #[cfg(target_arch = "aarch64")]
    fn arrange(level: Level, low: &[StoredGroup], high: &[StoredGroup], panel: &mut [Group<Self>]) {
        level.run(Arrange { low, high, panel });
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
    const MAX: i16 = (1 << 14) - 1;

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
    fn arrange(level: Level, low: &[StoredGroup], high: &[StoredGroup], panel: &mut [Group<Self>]) {
        match level.vectors() {
            super::level::Vectors::Avx2(witness) => super::avx2::i16_arrange(witness, low, high, panel),
            super::level::Vectors::Scalar => level.run(Arrange { low, high, panel }),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn multiply(level: Level, rows: &[&[Self]; ROWS], panel: &[Group<Self>]) -> Sums {
        match level {
            Level::Avx2(witness) => super::avx2::i16_multiply(witness, rows, panel),
            Level::Vnni(witness) => super::vnni::i16_multiply(witness, rows, panel),
            Level::Scalar => level.run(Multiply { rows, panel }),
        }
    }
}

/// A panel of weights with their scales.
#[derive(Debug, Clone, Default)]
pub struct Panel<Q> {
    /// `[K / 4]`, a multiple of four of them.
    pub groups: Vec<Group<Q>>,
    /// `[K / run]`, the scales of 16 outputs each.
    pub scales: Vec<Line>,
    /// Groups that share a scale: a multiple of four.
    pub run: usize,
}

/// Adds the products of six quantised rows with a panel to `acc`.
///
/// # Panics
/// If a row is not as long as the panel, or a run of the panel longer than [`RUN_MAX`].
pub fn accumulate<Q: Integer>(
    level: Level,
    rows: &[&[Q]; ROWS],
    row_scales: &[f32; ROWS],
    panel: &Panel<Q>,
    acc: &mut Tile,
) {
    assert!(rows.iter().all(|row| row.len() == panel.groups.len() * GROUP));
    let run = panel.run.min(panel.groups.len()).max(1);
    assert!(run * GROUP <= RUN_MAX);
    for ((at, groups), scales) in panel.groups.chunks(run).enumerate().zip(&panel.scales) {
        let rows = rows.map(|row| &row[at * run * GROUP..][..groups.len() * GROUP]);
        let sums = Q::multiply(level, &rows, groups);
        level.run(Rescale { sums: &sums, row_scales, scales, acc });
    }
}

struct Rescale<'a> {
    sums: &'a Sums,
    row_scales: &'a [f32; ROWS],
    scales: &'a Line,
    acc: &'a mut Tile,
}

impl Work for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((sums, &row_scale), acc) in self.sums.iter().zip(self.row_scales).zip(self.acc) {
            for ((&sum, &scale), acc) in sums.iter().zip(&self.scales.0).zip(&mut acc.0) {
                *acc = (sum as f32 * scale).mul_add(row_scale, *acc);
            }
        }
    }
}

struct Arrange<'a, Q> {
    low: &'a [StoredGroup],
    high: &'a [StoredGroup],
    panel: &'a mut [Group<Q>],
}

impl<Q: Integer> Work for Arrange<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (at, group) in self.panel.iter_mut().enumerate() {
            for (lane, stored) in [(0, self.low.get(at)), (BLOCK, self.high.get(at))] {
                for place in 0..BLOCK * GROUP {
                    let weight = stored.map_or(0, |stored| stored[place]);
                    group.0[Q::place(lane + place / GROUP, place % GROUP)] = Q::of(weight.into());
                }
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

    fn panel<Q: Integer>(level: Level, weights: &[i32], inputs: usize, run: usize) -> Panel<Q> {
        let groups = inputs.next_multiple_of(STEP) / GROUP;
        let mut arranged = vec![Group([Q::of(1); GROUP * LANES]); groups];
        let [low, high] = [stored(weights, 0..8, inputs), stored(weights, 8..16, inputs)];
        Q::arrange(level, &low, &high, &mut arranged);
        let scale = |at: usize| Line(std::array::from_fn(|lane| 0.25 + (at * LANES + lane) as f32));
        Panel { groups: arranged, scales: (0..groups.div_ceil(run)).map(scale).collect(), run }
    }

    /// The definition, with nothing of the code above but the formula.
    fn expected(rows: &[Vec<i32>], weights: &[i32], inputs: usize, run: usize, row_scales: &[f32]) -> Tile {
        let mut acc = [Line([1.5; LANES]); ROWS];
        for (first, at) in (0..inputs).step_by(run * GROUP).zip(0..) {
            let range = first..inputs.min(first + run * GROUP);
            for r in 0..ROWS {
                for lane in 0..LANES {
                    let sum: i32 = range.clone().map(|k| rows[r][k] * weights[lane * inputs + k]).sum();
                    let scale = 0.25 + (at * LANES + lane) as f32;
                    acc[r][lane] = (sum as f32 * scale).mul_add(row_scales[r], acc[r][lane]);
                }
            }
        }
        acc
    }

    fn every_level_gives_the_same_bits<Q: Integer>() {
        let row_scales = [1.0, 0.5, 1e-3, -2.0, 0.0, 7.0];
        for level in Level::available() {
            for inputs in (1..70).chain([320, 1024]) {
                for run in [8, RUN_MAX / GROUP] {
                    for start in [0, 1, 3] {
                        let weights = whole(LANES * inputs, 127, 5);
                        let rows: Vec<Vec<i32>> =
                            (0..ROWS).map(|r| whole(inputs, Q::MAX.into(), r as u32)).collect();
                        let padded = inputs.next_multiple_of(STEP);
                        // Rows start anywhere.
                        let typed: Vec<Vec<Q>> = rows
                            .iter()
                            .map(|row| {
                                let zeros = std::iter::repeat_n(0, padded - inputs);
                                let front = std::iter::repeat_n(9, start);
                                front.chain(row.iter().copied()).chain(zeros).map(Q::of).collect()
                            })
                            .collect();
                        let views: [&[Q]; ROWS] = std::array::from_fn(|r| &typed[r][start..]);
                        let panel = panel::<Q>(level, &weights, inputs, run);
                        let mut acc = [Line([1.5; LANES]); ROWS];
                        accumulate(level, &views, &row_scales, &panel, &mut acc);
                        let expected = expected(&rows, &weights, inputs, run, &row_scales);
                        assert_eq!(acc, expected, "{level:?}, {inputs} inputs in runs of {run}");
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
            let panel = panel::<i16>(level, &vec![-127; LANES * inputs], inputs, RUN_MAX / GROUP);
            let row = vec![<i16 as Integer>::MAX; inputs];
            let mut acc = [Line::ZERO; ROWS];
            accumulate(level, &[&row[..]; ROWS], &[1.0; ROWS], &panel, &mut acc);
            let sum = -127 * 16_383 * 1024;
            assert_eq!(acc[0][0], sum as f32 * 0.25, "{level:?}");
        }
    }
}
