//! CLIP: pictures and sentences as points of one space, where near means alike.

mod concept;
mod image_encoder;
mod preprocess;
mod safety;
mod statistics;

pub use concept::{Concept, Finding};
pub use image_encoder::{ImageEncoder, ImageError};
pub use preprocess::{PreprocessError, Preprocessor};
pub use safety::{SafetyChecker, SafetyError};
pub use statistics::{Statistics, StatisticsError};

/// Scales an embedding to length 1; zeros stay zeros.
pub fn normalise(embedding: &mut [f32]) {
    let length = embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        embedding.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// A point on the arc from one embedding to another: 0 is the first, 1 the second. Lengths change evenly along the way; between
/// directions that are one, or opposite, the way is straight.
///
/// # Panics
/// If their widths differ.
pub fn between(a: &[f32], b: &[f32], share: f64) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "embeddings of two widths");
    let product =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let [first, second] = [product(a, a).sqrt(), product(b, b).sqrt()];
    let angle = (product(a, b) / (first * second)).clamp(-1.0, 1.0).acos();
    let length = first + share * (second - first);
    let [from, to] = match angle.sin() {
        sine if sine > 1e-6 => {
            let part = |share: f64| length * (share * angle).sin() / sine;
            [part(1.0 - share) / first, part(share) / second]
        }
        _ => [1.0 - share, share],
    };
    a.iter().zip(b).map(|(&a, &b)| (from * f64::from(a) + to * f64::from(b)) as f32).collect()
}

/// The cosine of two embeddings of length 1.
///
/// # Panics
/// If their widths differ.
pub fn similarity(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "embeddings of two widths");
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_two_embeddings_is_an_arc() {
        let (a, b) = ([2.0, 0.0], [0.0, 4.0]);
        assert_eq!(between(&a, &b, 0.0), a);
        assert!(between(&a, &b, 1.0).iter().zip(b).all(|(got, want)| (got - want).abs() < 1e-6));
        let middle = between(&a, &b, 0.5);
        let side = 3.0 / 2f32.sqrt();
        assert!(middle.iter().all(|x| (x - side).abs() < 1e-6), "{middle:?}");
        assert_eq!(between(&a, &[4.0, 0.0], 0.5), [3.0, 0.0]);
    }

    #[test]
    fn similarity_is_the_cosine() {
        let (mut a, mut b, mut zero) = ([3.0, 4.0], [-4.0, 3.0], [0.0, 0.0]);
        [&mut a, &mut b, &mut zero].into_iter().for_each(|e| normalise(e));
        assert_eq!((a, zero), ([0.6, 0.8], [0.0, 0.0]));
        assert!((similarity(&a, &a) - 1.0).abs() < 1e-6);
        assert!(similarity(&a, &b).abs() < 1e-6);
    }
}
