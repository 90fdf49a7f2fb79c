//! The softmax of attention scores, a few keys at a time, of 16 queries side by side.
//!
//! ```text
//! max'    = max(max, scores)                     scores in powers of 2, so scaled by log2(e)
//! factor  = 2^(max - max')                       what earlier sums and outputs are multiplied by
//! weights = 2^(scores - max')
//! sum'    = sum factor + sum of the weights
//! ```
//! The division by the sum is left to the caller, who makes it once per output instead of once per key.
//!
//! Source: Milakov and Gimelshein 2018, algorithm 3, arXiv:1805.02867.

use std::f32::consts::LOG2_E;

use super::activation::exp2;
use super::level::{Level, Work};
use super::tile::{LANES, Line};

/// Lines whose largest scores are found at a time, so that a comparison need not wait for the one before.
const LINES: usize = 4;

/// The softmax of 16 queries, as far as their keys have been seen.
#[derive(Debug, Clone)]
pub struct Running {
    /// Minus infinity before the first key.
    max: Line,
    /// The sum of all weights, relative to the largest score so far.
    pub sum: Line,
}

impl Default for Running {
    /// Before the first key.
    fn default() -> Self {
        Self { max: Line([f32::NEG_INFINITY; LANES]), sum: Line::ZERO }
    }
}

impl Running {
    /// Takes in the scores of more keys, a line for each, of which query `l` sees the first `seen[l]`, and makes them
    /// weights, zeros for those that it does not see; returns what earlier weights are to be multiplied by.
    ///
    /// # Panics
    /// If a query sees more keys than there are.
    pub fn add(&mut self, level: Level, scores: &mut [Line], seen: [usize; LANES], scale: f32) -> Line {
        assert!(seen.iter().all(|&seen| seen <= scores.len()));
        level.run(Add { running: self, scores, seen, scale: scale * LOG2_E })
    }
}

struct Add<'a> {
    running: &'a mut Running,
    scores: &'a mut [Line],
    seen: [usize; LANES],
    scale: f32,
}

impl Work for Add<'_> {
    type Output = Line;

    #[inline(always)]
    fn run(self) -> Line {
        let Self { running, scores, seen, scale } = self;
        let seen_by_all = seen.iter().fold(scores.len(), |all, &seen| all.min(seen));
        let (full, rest) = scores.split_at_mut(seen_by_all);
        let max = largest(full, rest, &seen).map(|score| score * scale);
        let max: [f32; LANES] = std::array::from_fn(|l| larger(max[l], running.max[l]));
        let mut sums = Line::ZERO;
        for line in full {
            for l in 0..LANES {
                line[l] = exp2(line[l].mul_add(scale, -max[l]));
                sums[l] += line[l];
            }
        }
        for (key, line) in rest.iter_mut().enumerate() {
            for l in 0..LANES {
                let is_seen = seen_by_all + key < seen[l];
                line[l] = if is_seen { exp2(line[l].mul_add(scale, -max[l])) } else { 0.0 };
                sums[l] += line[l];
            }
        }
        let mut factors = Line::ZERO;
        for l in 0..LANES {
            // Also where nothing has been seen yet, and the difference is not a number.
            factors[l] = if running.max[l] == max[l] { 1.0 } else { exp2(running.max[l] - max[l]) };
            running.max[l] = max[l];
            running.sum[l] = running.sum[l].mul_add(factors[l], sums[l]);
        }
        factors
    }
}

/// The largest scores that 16 queries see, of those that all of them see and of the rest.
#[inline(always)]
fn largest(full: &[Line], rest: &[Line], seen: &[usize; LANES]) -> [f32; LANES] {
    let mut max = [f32::NEG_INFINITY; LANES];
    let (fours, others) = full.as_chunks::<LINES>();
    for [a, b, c, d] in fours {
        for l in 0..LANES {
            max[l] = larger(larger(larger(a[l], b[l]), larger(c[l], d[l])), max[l]);
        }
    }
    for line in others {
        for l in 0..LANES {
            max[l] = larger(line[l], max[l]);
        }
    }
    for (key, line) in (full.len()..).zip(rest) {
        for l in 0..LANES {
            max[l] = if key < seen[l] { larger(line[l], max[l]) } else { max[l] };
        }
    }
    max
}

/// One instruction on most machines, unlike [`f32::max`]; the second number where one is not a number.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_a_softmax_in_one_piece() {
        const SCALE: f32 = 0.25;
        for level in Level::available() {
            for (first, second) in [(1, 0), (16, 16), (5, 40), (33, 1), (64, 7)] {
                let keys = first + second;
                let score = |key: usize, l: usize| ((key * 7 + l) as f32 * 1.3).cos() * 500.0;
                let mut all: Vec<Line> =
                    (0..keys).map(|key| Line(std::array::from_fn(|l| score(key, l)))).collect();
                let mut running = Running::default();
                let (before, after) = all.split_at_mut(first);
                running.add(level, before, [first; LANES], SCALE);
                let factors = running.add(level, after, [second; LANES], SCALE);
                for l in 0..LANES {
                    before.iter_mut().for_each(|line| line[l] *= factors[l]);
                    let max = (0..keys).map(|key| score(key, l)).fold(f32::NEG_INFINITY, f32::max);
                    let exact = |key| (f64::from(SCALE) * f64::from(score(key, l) - max)).exp();
                    let sum: f64 = (0..keys).map(exact).sum();
                    for (key, line) in before.iter().chain(&*after).enumerate() {
                        let got = f64::from(line[l]) / f64::from(running.sum[l]);
                        assert!((got - exact(key) / sum).abs() < 2e-6, "{level:?}, key {key} of {keys}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_query_sees_no_key_beyond_its_own() {
        let seen = std::array::from_fn(|l| l * 20 / 15);
        for level in Level::available() {
            let mut weights = [Line([1.0; LANES]); 20];
            let mut running = Running::default();
            let factors = running.add(level, &mut weights, seen, 2.0);
            for l in 0..LANES {
                for (key, line) in weights.iter().enumerate() {
                    assert_eq!(line[l], f32::from(u8::from(key < seen[l])));
                }
                assert_eq!(running.sum[l], seen[l] as f32);
            }
            assert_eq!(factors[0], 1.0, "a query that saw nothing keeps what it had");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        for keys in [1, 6, 77, 256] {
            let line =
                |key: usize| Line(std::array::from_fn(|l| ((key * 31 + l * 7) % 997) as f32 * 0.11 - 40.0));
            let seen = std::array::from_fn(|l| keys - l.min(keys));
            let run = |level| {
                let mut weights: Vec<Line> = (0..keys).map(line).collect();
                let mut running = Running::default();
                running.add(level, &mut weights, [keys; LANES], 0.2);
                let mut more: Vec<Line> = (0..keys).map(|key| line(key + 300)).collect();
                let factors = running.add(level, &mut more, seen, 0.2);
                (weights, more, factors, running.sum)
            };
            let expected = run(Level::Scalar);
            Level::available().into_iter().for_each(|level| assert_eq!(run(level), expected, "{level:?}"));
        }
    }
}
