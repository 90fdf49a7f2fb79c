//! f32 -> int8 with a scale per output channel.
//!
//! The scale that covers the largest weight of a channel wastes levels on one outlier. Smaller scales are
//! tried, which clip the outlier and serve the rest better, and the one with the least squared error is kept.

/// Scales are tried from covering everything down to this share of it.
const LEAST_SHARE: f32 = 0.5;
/// How many scales are tried.
const TRIALS: u8 = 41;

/// A matrix in int8, row-major, and its scales, one a row.
pub struct Rows {
    /// The integers, -127 to 127.
    pub values: Vec<i8>,
    /// What a row's integers are multiplied by.
    pub scales: Vec<f32>,
}

/// The error of everything quantised so far.
#[derive(Debug, Default)]
pub struct Error {
    squared: f64,
    power: f64,
}

impl Error {
    /// The relative L2 error, 0 for nothing.
    pub fn relative(&self) -> f64 {
        if self.power > 0.0 { (self.squared / self.power).sqrt() } else { 0.0 }
    }
}

/// Quantises `values`, `[outputs, k]`, and adds its error to `error`.
///
/// # Panics
/// If there is not a whole number of values for each output.
pub fn per_channel(values: &[f32], outputs: usize, error: &mut Error) -> Rows {
    assert!(values.len().is_multiple_of(outputs), "the last channel is cut");
    let mut rows = Rows { values: Vec::with_capacity(values.len()), scales: Vec::with_capacity(outputs) };
    for row in values.chunks_exact(values.len() / outputs) {
        let (scale, squared) = best_scale(row);
        rows.values.extend(row.iter().map(|&x| level(x, scale)));
        rows.scales.push(scale);
        error.squared += squared;
        error.power += row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    }
    rows
}

fn best_scale(row: &[f32]) -> (f32, f64) {
    let largest = row.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    if largest == 0.0 {
        return (1.0, 0.0);
    }
    let trials = (0..TRIALS).map(|trial| {
        let share = 1.0 - (1.0 - LEAST_SHARE) * f32::from(trial) / f32::from(TRIALS - 1);
        let scale = (largest * share / 127.0).max(f32::MIN_POSITIVE);
        (scale, squared_error(row, scale))
    });
    trials.min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is at least one trial")
}

fn squared_error(row: &[f32], scale: f32) -> f64 {
    row.iter().map(|&x| f64::from(f32::from(level(x, scale)) * scale - x).powi(2)).sum()
}

fn level(x: f32, scale: f32) -> i8 {
    (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_is_clipped_only_where_that_serves_the_rest() {
        let mut error = Error::default();
        let even: Vec<f32> = (-127i16..=127).map(f32::from).collect();
        let rows = per_channel(&even, 1, &mut error);
        assert_eq!(rows.scales, [1.0]);
        assert_eq!(error.relative(), 0.0);

        let mut outlier: Vec<f32> = (0..4096u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
        outlier[7] = 1.4;
        let clipped = per_channel(&outlier, 1, &mut Error::default());
        assert!(clipped.scales[0] < 1.4 / 127.0);
        assert!(squared_error(&outlier, clipped.scales[0]) < squared_error(&outlier, 1.4 / 127.0));
    }

    #[test]
    fn a_channel_of_zeros_stays_zeros() {
        let rows = per_channel(&[0.0; 8], 2, &mut Error::default());
        assert_eq!((rows.values, rows.scales), (vec![0; 8], vec![1.0; 2]));
    }
}
