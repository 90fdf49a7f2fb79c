//! A picture -> the square of normalised pixels that CLIP's image encoder takes.
//!
//! ```text
//! shortest side to the model's size, bicubic -> cut out the middle -> (x / 255 - mean) / std
//! ```
//! Source: `CLIPImageProcessor` of transformers.

use serde_json::Value;

use crate::picture::{Filter, cover};
use crate::tensor::Rgb8;

/// What a picture goes through before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    side_px: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

/// The configuration is not one of CLIP's.
#[derive(Debug, thiserror::Error)]
#[error("preprocessor_config.json: {key} is {got}, expected {expected}")]
pub struct PreprocessError {
    /// The key.
    key: &'static str,
    /// What it may be.
    expected: &'static str,
    /// What it is.
    got: String,
}

impl Preprocessor {
    /// Reads the configuration that stands beside the image encoder.
    ///
    /// # Errors
    /// [`PreprocessError`] for a size or normalisation that is missing or impossible.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PreprocessError> {
        let config: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let crop = &config["crop_size"];
        let side =
            [&crop["height"], crop, &config["size"]["shortest_edge"]].into_iter().find_map(Value::as_u64);
        let side_px = side.and_then(|s| usize::try_from(s).ok()).filter(|s| (1..=1024).contains(s));
        let wrong = |key, expected| PreprocessError { key, expected, got: config[key].to_string() };
        let side_px = side_px.ok_or_else(|| wrong("crop_size", "1 to 1024 pixels"))?;
        let triple = |key| three(&config[key]).ok_or_else(|| wrong(key, "three numbers"));
        let (mean, std) = (triple("image_mean")?, triple("image_std")?);
        if std.contains(&0.0) {
            return Err(wrong("image_std", "three numbers that are not 0"));
        }
        Ok(Self { side_px, mean, std })
    }

    /// The side of the square, in pixels.
    pub fn side_px(&self) -> usize {
        self.side_px
    }

    /// Prepares a picture: planar f32 `[3, side, side]`.
    pub fn prepare(&self, picture: &Rgb8) -> Vec<f32> {
        let square = cover(picture, self.side_px, self.side_px, Filter::Bicubic);
        let planes =
            (0..3).flat_map(|c| square.pixels().iter().skip(c).step_by(3).map(move |&byte| (c, byte)));
        planes.map(|(c, byte)| (f32::from(byte) / 255.0 - self.mean[c]) / self.std[c]).collect()
    }
}

fn three(value: &Value) -> Option<[f32; 3]> {
    let numbers: Option<Vec<f32>> = value.as_array()?.iter().map(|v| v.as_f64().map(|x| x as f32)).collect();
    numbers?.try_into().ok().filter(|n: &[f32; 3]| n.iter().all(|x| x.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] =
        br#"{"crop_size":{"height":4,"width":4},"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5]}"#;

    #[test]
    fn the_middle_of_a_wide_picture_is_seen() {
        let halves = (0..40 * 8).flat_map(|at| [if at % 40 < 20 { 0 } else { 255 }, 51, 0]);
        let picture = Rgb8::new(halves.collect(), 40, 8).unwrap();
        let pixels = Preprocessor::from_json(CONFIG).unwrap().prepare(&picture);
        assert_eq!(pixels.len(), 3 * 16);
        assert!(pixels[0] < -0.9 && pixels[3] > 0.9, "{pixels:?}");
        assert!(pixels[16..32].iter().all(|x| (x + 0.6).abs() < 1e-6));
    }

    #[test]
    fn configurations_that_cannot_be_used() {
        for (config, key) in
            [(&b"{}"[..], "crop_size"), (br#"{"crop_size":8,"image_mean":[1]}"#, "image_mean")]
        {
            let error = Preprocessor::from_json(config).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
