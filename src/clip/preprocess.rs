//! A picture file -> the square of normalised pixels that CLIP's image encoder takes.
//!
//! ```text
//! decode -> RGB -> shortest side to the model's size, bicubic -> cut out the middle -> (x / 255 - mean) / std
//! ```
//! Source: `CLIPImageProcessor` of transformers.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ImageReader, Limits, RgbImage};
use serde_json::Value;

/// The largest side of a picture that is decoded.
const SIDE_MAX_PX: u32 = 16384;
/// The most memory that decoding may take.
const DECODE_MAX_BYTES: u64 = 512 << 20;
/// A stretched picture would be enlarged without bound on its way to the square.
const ASPECT_MAX: u32 = 64;

/// What a picture goes through before it is encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    side_px: u32,
    mean: [f32; 3],
    std: [f32; 3],
}

/// Why a picture cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The configuration is not one of CLIP's.
    #[error("preprocessor_config.json: {key} is {got}, expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The file is no picture that can be decoded, or too large.
    #[error("cannot decode the picture")]
    Decode(#[from] image::ImageError),
    /// The kind of file is not known.
    #[error("cannot tell what kind of picture this is")]
    Kind(#[from] std::io::Error),
    /// A side is many times the other.
    #[error("a picture of {width} x {height} px is too narrow: one side may be {ASPECT_MAX} times the other")]
    Aspect {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
}

impl Preprocessor {
    /// Reads the configuration that stands beside the image encoder.
    ///
    /// # Errors
    /// [`PreprocessError::Config`] for a size or normalisation that is missing or impossible.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PreprocessError> {
        let config: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let crop = &config["crop_size"];
        let side =
            [&crop["height"], crop, &config["size"]["shortest_edge"]].into_iter().find_map(Value::as_u64);
        let side_px = side.and_then(|s| u32::try_from(s).ok()).filter(|s| (1..=1024).contains(s));
        let wrong = |key, expected| PreprocessError::Config { key, expected, got: config[key].to_string() };
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
        self.side_px as usize
    }

    /// Decodes a picture file and prepares it: planar f32 `[3, side, side]`.
    ///
    /// # Errors
    /// - [`PreprocessError::Kind`], [`PreprocessError::Decode`]: it cannot be decoded within the limits.
    /// - [`PreprocessError::Aspect`]: it is too narrow.
    pub fn prepare(&self, file: &[u8]) -> Result<Vec<f32>, PreprocessError> {
        let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(SIDE_MAX_PX), Some(SIDE_MAX_PX));
        limits.max_alloc = Some(DECODE_MAX_BYTES);
        reader.limits(limits);
        let picture = reader.decode()?.into_rgb8();
        let (width, height) = picture.dimensions();
        if width.max(height) > ASPECT_MAX.saturating_mul(width.min(height)) {
            return Err(PreprocessError::Aspect { width, height });
        }
        Ok(self.normalised(&self.square(&picture)))
    }

    /// The middle of the picture after its shortest side was brought to the model's size.
    fn square(&self, picture: &RgbImage) -> RgbImage {
        let (width, height) = picture.dimensions();
        let long =
            |side: u32, short: u32| (u64::from(side) * u64::from(self.side_px) / u64::from(short)) as u32;
        let (w, h) = if width < height {
            (self.side_px, long(height, width))
        } else {
            (long(width, height), self.side_px)
        };
        let resized = imageops::resize(picture, w, h, FilterType::CatmullRom);
        let middle = |side: u32| (side - self.side_px) / 2;
        imageops::crop_imm(&resized, middle(w), middle(h), self.side_px, self.side_px).to_image()
    }

    fn normalised(&self, square: &RgbImage) -> Vec<f32> {
        let planes = (0..3).flat_map(|c| square.pixels().map(move |pixel| (c, pixel.0[c])));
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

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture =
            RgbImage::from_fn(width, height, |x, _| image::Rgb([if x < width / 2 { 0 } else { 255 }, 51, 0]));
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    }

    #[test]
    fn the_middle_of_a_wide_picture_is_seen() {
        let pixels = Preprocessor::from_json(CONFIG).unwrap().prepare(&png(40, 8)).unwrap();
        assert_eq!(pixels.len(), 3 * 16);
        assert!(pixels[0] < -0.9 && pixels[3] > 0.9, "{pixels:?}");
        assert!(pixels[16..32].iter().all(|x| (x + 0.6).abs() < 1e-6));
    }

    #[test]
    fn pictures_that_cannot_be_taken() {
        let preprocessor = Preprocessor::from_json(CONFIG).unwrap();
        let good = png(8, 8);
        assert!(matches!(preprocessor.prepare(b""), Err(PreprocessError::Decode(_))));
        assert!(matches!(preprocessor.prepare(&good[..good.len() / 2]), Err(PreprocessError::Decode(_))));
        assert!(matches!(preprocessor.prepare(&png(200, 1)), Err(PreprocessError::Aspect { .. })));
        for (config, key) in
            [(&b"{}"[..], "crop_size"), (br#"{"crop_size":8,"image_mean":[1]}"#, "image_mean")]
        {
            let error = Preprocessor::from_json(config).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
