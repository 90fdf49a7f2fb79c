//! The one product that everything else is built from.
//!
//! ```text
//! acc[r][l] += sum over k of rows[r][k] * panel[k][l]        r < 6, l < 16
//! ```
//! A row is a run of channels of one pixel (or of one token), a panel holds 16 output channels of the same
//! run. A 3x3 convolution is nine such products into the same accumulators, one per tap, each with its own
//! six row pointers: nothing is gathered into columns first. Six rows of two 8-lane registers leave room for
//! the panel's two and one broadcast in sixteen registers. Products are added by fused multiply-add, in the order of `k`:
//! so all levels give the same bits.

use std::ops::{Deref, DerefMut};

use super::Level;
use super::level::Vectors;

/// Rows of activations in a tile.
pub const ROWS: usize = 6;
/// Output channels in a tile, the width of a panel.
pub const LANES: usize = 16;

/// Numbers of 16 output channels side by side, aligned so that no vector of them lies in two cache lines.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

impl Line {
    /// Zeros.
    pub const ZERO: Self = Self([0.0; LANES]);
}

impl Deref for Line {
    type Target = [f32; LANES];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// The accumulators of one tile.
pub type Tile = [Line; ROWS];

/// The inputs of one tile.
pub type Rows<'a> = [&'a [f32]; ROWS];

/// `acc[r][l] += sum over k of rows[r][k] * panel[k][l]`, for some tiles.
///
/// # Panics
/// If a row is shorter than the panel.
#[inline]
pub fn accumulate<'a, 't>(
    level: Level,
    panel: &[Line],
    tiles: impl Iterator<Item = (Rows<'a>, &'t mut Tile)>,
) {
    match level.vectors() {
        Vectors::Scalar => tiles.for_each(|(rows, acc)| scalar(&rows, panel, acc)),
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2(witness) => {
            tiles.for_each(|(rows, acc)| super::avx2::accumulate(witness, &rows, panel, acc));
        }
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512(witness) => super::avx512::accumulate(witness, panel, tiles),
        #[cfg(target_arch = "aarch64")]
        Vectors::Neon(witness) => {
            tiles.for_each(|(rows, acc)| super::neon::accumulate(witness, &rows, panel, acc));
        }
    }
}

fn scalar(rows: &Rows, panel: &[Line], acc: &mut Tile) {
    for (row, sums) in rows.iter().zip(acc) {
        for (&x, weights) in row[..panel.len()].iter().zip(panel) {
            for (sum, &w) in sums.iter_mut().zip(&weights.0) {
                *sum = x.mul_add(w, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn every_level_gives_the_bits_of_the_scalar_one() {
        for level in Level::available() {
            for k in 0..70 {
                for start in 0..3 {
                    let data: Vec<Vec<f32>> = (0..6).map(|r| ramp(k + start, r + 1)).collect();
                    let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &data[r][start..]);
                    let flat = ramp(k * LANES, 99);
                    let panel: Vec<Line> = flat.as_chunks().0.iter().copied().map(Line).collect();
                    let begun: Tile = [Line([0.5; LANES]); ROWS];
                    let mut expected = begun;
                    for (r, line) in expected.iter_mut().enumerate() {
                        for (l, sum) in line.iter_mut().enumerate() {
                            *sum = (0..k).fold(*sum, |sum, k| rows[r][k].mul_add(flat[k * LANES + l], sum));
                        }
                    }
                    // Some levels take two or three tiles together; each tile begins with another row.
                    for count in 1..8 {
                        let mut tiles = vec![begun; count];
                        let turned = (0..).map(|at| std::array::from_fn(|r| rows[(at + r) % ROWS]));
                        accumulate(level, &panel, turned.zip(&mut tiles));
                        for (at, tile) in tiles.into_iter().enumerate() {
                            let expected: Tile = std::array::from_fn(|r| expected[(at + r) % ROWS]);
                            assert_eq!(tile, expected, "{level:?}, k {k}, tile {at} of {count}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn infinities_and_nans_pass_through() {
        let row = [f32::INFINITY, 1.0, f32::NAN];
        let rows = [&row[..2], &row[1..], &row[..2], &row[..2], &row[..2], &row[..2]];
        let panel = [Line([1.0; LANES]); 2];
        for level in Level::available() {
            let mut acc: Tile = [Line::ZERO; ROWS];
            accumulate(level, &panel, std::iter::once((rows, &mut acc)));
            assert_eq!(acc[0].0, [f32::INFINITY; LANES]);
            assert!(acc[1].iter().all(|x| x.is_nan()));
        }
    }
}
