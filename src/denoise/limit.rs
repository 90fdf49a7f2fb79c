//! Keeping the predicted original sample in range: clipping, and dynamic thresholding.
//!
//! Source: Saharia et al. 2022, section 2.3, arXiv:2205.11487.

use super::config::Clip;

/// What one step does to the predicted original sample.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// Nothing.
    None,
    /// Clamps.
    Clamp {
        /// The largest magnitude.
        range: f32,
    },
    /// Clamps, and makes the range that of -1 to 1.
    Threshold {
        /// The largest magnitude before.
        range: f32,
    },
}

impl Limit {
    /// `magnitudes` yields the absolute values of the `len` predicted values, as often as it is called.
    pub(super) fn new<I: Iterator<Item = f32>>(clip: Clip, len: usize, magnitudes: impl Fn() -> I) -> Self {
        match clip {
            Clip::Off => Self::None,
            Clip::Fixed { range } => Self::Clamp { range },
            Clip::Dynamic { ratio, max } => {
                Self::Threshold { range: quantile(ratio, len, magnitudes).max(1.0).min(max) }
            }
        }
    }

    /// An original sample, limited.
    pub(super) fn apply(self, original: f32) -> f32 {
        match self {
            Self::None => original,
            Self::Clamp { range } => original.clamp(-range, range),
            Self::Threshold { range } => original.clamp(-range, range) / range,
        }
    }
}

/// The `q` quantile of `len` magnitudes, interpolated between its two neighbours as `torch.quantile` does.
fn quantile<I: Iterator<Item = f32>>(q: f32, len: usize, magnitudes: impl Fn() -> I) -> f32 {
    let rank = f64::from(q) * len.saturating_sub(1) as f64;
    let below = order_statistic(rank.floor() as usize, &magnitudes);
    let above = order_statistic(rank.ceil() as usize, &magnitudes);
    let weight = (rank - rank.floor()) as f32;
    if weight < 0.5 { below + weight * (above - below) } else { above - (above - below) * (1.0 - weight) }
}

/// The value that would stand at `rank` if the magnitudes were sorted, found without room to sort them.
///
/// The bits of floats that are not negative are ordered as the floats are, so this bisects the 31 bits.
fn order_statistic<I: Iterator<Item = f32>>(rank: usize, magnitudes: &impl Fn() -> I) -> f32 {
    let (mut low, mut high) = (0, f32::INFINITY.to_bits());
    while low < high {
        let middle = low + (high - low) / 2;
        let reached = magnitudes().filter(|value| value.to_bits() <= middle).count() > rank;
        (low, high) = if reached { (low, middle) } else { (middle + 1, high) };
    }
    f32::from_bits(low)
}
