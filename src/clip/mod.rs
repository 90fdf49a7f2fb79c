//! CLIP: pictures and sentences as points of one space, where near means alike.

mod concept;
mod image_encoder;
mod preprocess;
mod safety;

pub use concept::{Concept, Finding};
pub use image_encoder::{ImageEncoder, ImageError};
pub use preprocess::{PreprocessError, Preprocessor};
pub use safety::{SafetyChecker, SafetyError};

/// Scales an embedding to length 1; zeros stay zeros.
pub fn normalise(embedding: &mut [f32]) {
    let length = embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        embedding.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
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
    fn similarity_is_the_cosine() {
        let (mut a, mut b, mut zero) = ([3.0, 4.0], [-4.0, 3.0], [0.0, 0.0]);
        [&mut a, &mut b, &mut zero].into_iter().for_each(|e| normalise(e));
        assert_eq!((a, zero), ([0.6, 0.8], [0.0, 0.0]));
        assert!((similarity(&a, &a) - 1.0).abs() < 1e-6);
        assert!(similarity(&a, &b).abs() < 1e-6);
    }
}
