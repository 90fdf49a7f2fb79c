//! The softmax of rows of attention scores, a few keys at a time.
//!
//! ```text
//! max'    = max(max, scores)
//! factor  = exp(scale (max - max'))          what earlier sums and outputs are multiplied by
//! weights = exp(scale (scores - max'))
//! sum'    = sum factor + sum of the weights
//! ```
//! The division by the sum is left to the caller, who makes it once per output instead of once per key.
//!
//! Source: Milakov and Gimelshein 2018, algorithm 3, arXiv:1805.02867.

use super::activation::exp;
use super::level::{Level, Work};
use super::tile::{LANES, ROWS, Tile};

/// The softmax of six rows, as far as their keys have been seen.
#[derive(Debug, Clone)]
pub struct Running {
    max: [f32; ROWS],
    /// The sum of all weights, relative to the largest score so far.
    pub sum: [f32; ROWS],
}

impl Default for Running {
    /// Before the first key.
    fn default() -> Self {
        Self { max: [f32::NEG_INFINITY; ROWS], sum: [0.0; ROWS] }
    }
}

impl Running {
    /// Takes in more keys, 16 to a tile, of which row `r` sees the first `seen[r]`. The weights of the keys of row `r`
    /// are written from `weights[r]` on, zeros for those that it does not see; returns what earlier weights are to be
    /// multiplied by.
    ///
    /// # Panics
    /// If a row sees more keys than there are, or has less room for weights than keys.
    pub fn add(
        &mut self,
        level: Level,
        scores: &[Tile],
        seen: [usize; ROWS],
        scale: f32,
        weights: &mut [Vec<f32>; ROWS],
    ) -> [f32; ROWS] {
        level.run(Add { running: self, scores, seen, scale, weights })
    }
}

struct Add<'a> {
    running: &'a mut Running,
    scores: &'a [Tile],
    seen: [usize; ROWS],
    scale: f32,
    weights: &'a mut [Vec<f32>; ROWS],
}

impl Work for Add<'_> {
    type Output = [f32; ROWS];

    #[inline(always)]
    fn run(self) -> [f32; ROWS] {
        let Self { running, scores, seen, scale, weights } = self;
        let mut factors = [1.0; ROWS];
        for r in 0..ROWS {
            let (full, rest) = (seen[r] / LANES, seen[r] % LANES);
            let mut highest = [running.max[r]; LANES];
            for tile in &scores[..full] {
                for (highest, &score) in highest.iter_mut().zip(&tile[r].0) {
                    *highest = score.max(*highest);
                }
            }
            let rest = if rest > 0 { &scores[full][r][..rest] } else { &[] };
            let mut max = f32::NEG_INFINITY;
            for &score in highest.iter().chain(rest) {
                max = max.max(score);
            }
            let (out, beyond) = weights[r].split_at_mut(full * LANES);
            let mut sums = [0.0; LANES];
            for (tile, out) in scores.iter().zip(out.as_chunks_mut::<LANES>().0) {
                for ((out, sum), &score) in out.iter_mut().zip(&mut sums).zip(&tile[r].0) {
                    *out = exp(scale * (score - max));
                    *sum += *out;
                }
            }
            beyond.fill(0.0);
            for ((out, sum), &score) in beyond.iter_mut().zip(&mut sums).zip(rest) {
                *out = exp(scale * (score - max));
                *sum += *out;
            }
            if seen[r] > 0 {
                // Nothing came before the first keys.
                let is_first = running.max[r] == f32::NEG_INFINITY;
                factors[r] = if is_first { 0.0 } else { exp(scale * (running.max[r] - max)) };
                running.max[r] = max;
            }
            running.sum[r] = running.sum[r] * factors[r] + sums.iter().sum::<f32>();
        }
        factors
    }
}

#[cfg(test)]
mod tests {
    use super::super::Line;
    use super::*;

    /// Six rows of `keys` scores each, in tiles.
    fn tiles(scores: &[Vec<f32>; ROWS], keys: usize) -> Vec<Tile> {
        let score = |r: usize, key: usize| scores[r].get(key).copied().unwrap_or(0.0);
        let line = |r: usize, tile: usize| Line(std::array::from_fn(|l| score(r, tile * LANES + l)));
        (0..keys.div_ceil(LANES)).map(|tile| std::array::from_fn(|r| line(r, tile))).collect()
    }

    #[test]
    fn weights_are_those_of_a_softmax_in_one_piece() {
        const SCALE: f32 = 0.25;
        for level in Level::available() {
            for (first, second) in [(1, 0), (16, 16), (5, 40), (33, 1), (64, 7)] {
                let keys = first + second;
                let scores: [Vec<f32>; ROWS] = std::array::from_fn(|r| {
                    (0..keys).map(|key| ((key * 7 + r) as f32 * 1.3).cos() * 500.0).collect()
                });
                let parts = [0..first, first..keys];
                let mut running = Running::default();
                // What the weights of each part come to in the end.
                let mut all: [Vec<f32>; ROWS] = Default::default();
                for part in parts {
                    let some: [Vec<f32>; ROWS] = std::array::from_fn(|r| scores[r][part.clone()].to_vec());
                    let mut weights = std::array::from_fn(|_| vec![9.0; part.len().next_multiple_of(LANES)]);
                    let tiles = tiles(&some, part.len());
                    let factors = running.add(level, &tiles, [part.len(); ROWS], SCALE, &mut weights);
                    for r in 0..ROWS {
                        all[r].iter_mut().for_each(|weight| *weight *= factors[r]);
                        all[r].extend(&weights[r][..part.len()]);
                        assert!(weights[r][part.len()..].iter().all(|&weight| weight == 0.0));
                    }
                }
                for r in 0..ROWS {
                    let max = scores[r].iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let exact: Vec<f64> =
                        scores[r].iter().map(|s| (f64::from(SCALE) * f64::from(s - max)).exp()).collect();
                    assert!((f64::from(running.sum[r]) - exact.iter().sum::<f64>()).abs() < 1e-5);
                    assert!(
                        all[r].iter().zip(&exact).all(|(&got, exact)| (f64::from(got) - exact).abs() < 1e-6)
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_sees_no_key_beyond_its_own() {
        let scores: [Vec<f32>; ROWS] = std::array::from_fn(|_| vec![1.0; 20]);
        let mut running = Running::default();
        let mut weights = std::array::from_fn(|_| vec![9.0; 32]);
        let seen = [0, 1, 15, 16, 17, 20];
        let factors = running.add(Level::detect(), &tiles(&scores, 20), seen, 2.0, &mut weights);
        for r in 0..ROWS {
            let expected: Vec<f32> = (0..32).map(|key| f32::from(u8::from(key < seen[r]))).collect();
            assert_eq!(weights[r], expected);
            assert_eq!(running.sum[r], seen[r] as f32);
        }
        assert_eq!(factors[0], 1.0, "a row that saw nothing keeps what it had");
    }
}
