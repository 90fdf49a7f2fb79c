//! f32 -> int8, with a scale for each output channel or for each 32 inputs of one.
//!
//! The scale that covers the largest weight wastes levels on one outlier. Smaller scales are tried, which clip the
//! outlier and serve the rest better, and the one with the least squared error is kept. Where even that leaves a
//! matrix too far off, each 32 inputs get a scale of their own, at an eighth more of space.

use super::report::Deviation;
use crate::bundle::Scales;

/// Scales are tried from covering everything down to this share of it.
const LEAST_SHARE: f32 = 0.6;
/// How many scales are tried.
const TRIALS: u8 = 21;
/// 1.5 * 2^23: added and taken away again, it leaves the nearest whole number, ties to even.
const ROUNDING: f32 = 12_582_912.0;

/// The scales of a matrix and what they leave off.
pub struct Scaling {
    /// What shares a scale.
    pub kind: Scales,
    /// `[outputs][scales of a channel]`.
    pub scales: Vec<f32>,
    /// The error of the integers that go with them.
    pub error: Deviation,
}

impl Scaling {
    /// The scales for `values`, `[outputs, k]`: one for each channel if they leave a relative L2 of at most
    /// `channel_error_max`, else one for each 32 inputs.
    ///
    /// # Panics
    /// If there is not a whole number of values for each output.
    pub fn of(values: &[f32], outputs: usize, channel_error_max: f64) -> Self {
        let channels = Self::with(values, outputs, Scales::Channel);
        if channels.error.relative_l2() <= channel_error_max {
            return channels;
        }
        Self::with(values, outputs, Scales::Block32)
    }

    fn with(values: &[f32], outputs: usize, kind: Scales) -> Self {
        let (mut scales, mut error) = (Vec::new(), Deviation::default());
        for run in runs(values, outputs, kind) {
            let scale = best_scale(run);
            error.add(run, run.iter().map(|&x| rounded(x, scale.recip()) * scale));
            scales.push(scale);
        }
        Self { kind, scales, error }
    }

    /// The integers of `values`, -127 to 127.
    pub fn integers(&self, values: &[f32], outputs: usize) -> Vec<i8> {
        let runs = runs(values, outputs, self.kind).zip(&self.scales);
        runs.flat_map(|(run, scale)| run.iter().map(|&x| rounded(x, scale.recip()) as i8)).collect()
    }
}

/// The values that share a scale, one after the other.
fn runs(values: &[f32], outputs: usize, kind: Scales) -> impl Iterator<Item = &[f32]> {
    assert!(values.len().is_multiple_of(outputs), "the last channel is cut");
    let k = values.len() / outputs;
    let len = if kind == Scales::Channel { k } else { 32 };
    values.chunks_exact(k).flat_map(move |row| row.chunks(len))
}

fn best_scale(run: &[f32]) -> f32 {
    let largest = run.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    if largest == 0.0 {
        return 1.0;
    }
    let trials = (0..TRIALS).map(|trial| {
        let share = 1.0 - (1.0 - LEAST_SHARE) * f32::from(trial) / f32::from(TRIALS - 1);
        let scale = (largest * share / 127.0).max(f32::MIN_POSITIVE);
        (scale, squared_error(run, scale))
    });
    trials.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is at least one trial").0
}

/// In f32 within 256 values, in f64 across.
fn squared_error(run: &[f32], scale: f32) -> f64 {
    let inverse = scale.recip();
    let of = |part: &[f32]| part.iter().map(|&x| rounded(x, inverse) * scale - x).map(|e| e * e).sum::<f32>();
    run.chunks(256).map(|part| f64::from(of(part))).sum()
}

fn rounded(x: f32, inverse: f32) -> f32 {
    (x * inverse).clamp(-127.0, 127.0) + ROUNDING - ROUNDING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: u16) -> Vec<f32> {
        (0..len).map(|i| (f32::from(i) * 0.37).sin()).collect()
    }

    #[test]
    fn whole_numbers_are_kept_and_ties_go_to_even() {
        let even: Vec<f32> = (-127i16..=127).map(f32::from).collect();
        let scaling = Scaling::of(&even, 1, 0.0);
        assert_eq!((scaling.kind, &scaling.scales[..]), (Scales::Channel, &[1.0][..]));
        assert_eq!(scaling.error.relative_l2(), 0.0);
        assert_eq!(scaling.integers(&even, 1), (-127..=127).collect::<Vec<i8>>());
        for (x, whole) in
            [(0.5, 0.0), (1.5, 2.0), (-2.5, -2.0), (126.5, 126.0), (300.0, 127.0), (-300.0, -127.0)]
        {
            assert_eq!(rounded(x, 1.0), whole, "{x}");
        }
    }

    #[test]
    fn an_outlier_is_clipped_only_where_that_serves_the_rest() {
        let mut outlier = wave(4096);
        outlier[7] = 1.4;
        let scale = best_scale(&outlier);
        assert!(scale < 1.4 / 127.0);
        assert!(squared_error(&outlier, scale) < squared_error(&outlier, 1.4 / 127.0));
    }

    #[test]
    fn a_channel_far_off_gets_a_scale_for_each_32_inputs() {
        let mut values = wave(2 * 96);
        values[40] = 90.0;
        let channels = Scaling::of(&values, 2, f64::INFINITY);
        assert_eq!((channels.kind, channels.scales.len()), (Scales::Channel, 2));
        let blocks = Scaling::of(&values, 2, 0.01);
        assert_eq!((blocks.kind, blocks.scales.len()), (Scales::Block32, 6));
        assert!(blocks.error.relative_l2() < 0.7 * channels.error.relative_l2());
        let integers = blocks.integers(&values, 2);
        for (at, (&x, &i)) in values.iter().zip(&integers).enumerate() {
            let scale = blocks.scales[at / 96 * 3 + at % 96 / 32];
            assert!((f32::from(i) * scale - x).abs() <= 0.5001 * scale.max(x.abs() - 127.0 * scale), "{at}");
        }
    }

    #[test]
    fn a_channel_of_zeros_stays_zeros() {
        let scaling = Scaling::of(&[0.0; 8], 2, 0.0);
        assert_eq!((scaling.integers(&[0.0; 8], 2), scaling.scales), (vec![0; 8], vec![1.0; 2]));
    }
}
