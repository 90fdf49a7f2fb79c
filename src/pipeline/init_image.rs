//! A picture to begin from, and which part of it is to be drawn anew.

use super::{RequestError, Size};
use crate::picture::{Filter, cover, luma};
use crate::tensor::Rgb8;

/// How far a whole picture is taken back towards noise where nobody says.
///
/// Source: `StableDiffusionImg2ImgPipeline` of diffusers 0.42.1.
const STRENGTH: f64 = 0.8;
/// From this brightness on a mask says that a pixel is to be drawn anew.
const BRIGHT: u8 = 128;

/// A picture in the size of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct InitImage {
    picture: Rgb8,
    mask: Option<Mask>,
    strength: f64,
}

/// For every pixel whether it is to be drawn anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    redrawn: Vec<bool>,
    width_px: usize,
}

impl InitImage {
    /// A picture, resized so that it covers `size` and cut to its middle, and the same of a mask, which is white where the
    /// picture is to be drawn anew.
    ///
    /// `strength`: the share of the steps that are taken, above 0 and up to 1; 0.8 if not given, and 1 with a mask.
    ///
    /// # Errors
    /// [`RequestError::Strength`], [`RequestError::MaskSize`].
    pub fn new(
        picture: &Rgb8,
        mask: Option<&Rgb8>,
        strength: Option<f64>,
        size: Size,
    ) -> Result<Self, RequestError> {
        let strength = strength.unwrap_or(if mask.is_some() { 1.0 } else { STRENGTH });
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(RequestError::Strength { got: strength });
        }
        let sides = |picture: &Rgb8| [picture.width_px(), picture.height_px()];
        if let Some(got) = mask.map(sides).filter(|&mask| mask != sides(picture)) {
            return Err(RequestError::MaskSize { expected: sides(picture), got });
        }
        let fitted = |picture| cover(picture, size.width_px, size.height_px, Filter::Lanczos);
        Ok(Self { picture: fitted(picture), mask: mask.map(|mask| Mask::of(&fitted(mask))), strength })
    }

    /// The picture.
    pub fn picture(&self) -> &Rgb8 {
        &self.picture
    }

    /// What of it is to be drawn anew; all of it if there is none.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// The share of the steps that are taken.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// A hash of pixels and mask.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.picture.pixels());
        if let Some(mask) = &self.mask {
            mask.redrawn.iter().for_each(|&redrawn| _ = hasher.update(&[u8::from(redrawn)]));
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The step that the run begins with; as many as it has if none is left.
    pub(super) fn first_step(&self, steps: usize) -> usize {
        steps - ((steps as f64 * self.strength) as usize).min(steps)
    }
}

impl Mask {
    fn of(picture: &Rgb8) -> Self {
        let pixels = picture.pixels().as_chunks().0.iter();
        Self { redrawn: pixels.map(|&pixel| luma(pixel) >= BRIGHT).collect(), width_px: picture.width_px() }
    }

    /// Whether a pixel is to be drawn anew, by its number, row after row.
    pub fn is_redrawn(&self, pixel: usize) -> bool {
        self.redrawn[pixel]
    }

    /// The same for latent cells of `scale` pixels a side, as 1 and 0: the upper left pixel stands for its cell.
    pub fn cells(&self, scale: usize) -> Vec<f32> {
        let rows = self.redrawn.chunks_exact(self.width_px).step_by(scale);
        rows.flat_map(|row| row.iter().step_by(scale)).map(|&redrawn| f32::from(u8::from(redrawn))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width_px: 4, height_px: 2 };

    fn grey(values: &[u8], width: usize) -> Rgb8 {
        let pixels = values.iter().flat_map(|&v| [v; 3]).collect();
        Rgb8::new(pixels, width, values.len() / width).unwrap()
    }

    #[test]
    fn the_upper_left_pixel_stands_for_its_cell() {
        let mask = Mask::of(&grey(&[128, 0, 127, 255, 0, 255, 255, 255], 4));
        assert_eq!(mask.cells(2), [1.0, 0.0]);
        assert!(mask.is_redrawn(3) && !mask.is_redrawn(2));
    }

    #[test]
    fn the_strength_says_how_many_steps_are_taken() {
        let picture = grey(&[0; 8], 4);
        let first =
            |strength, steps| InitImage::new(&picture, None, Some(strength), SIZE).unwrap().first_step(steps);
        assert_eq!([first(1.0, 8), first(0.5, 8), first(0.49, 8), first(0.1, 8)], [0, 4, 5, 8]);
        for strength in [0.0, -0.1, 1.1, f64::NAN] {
            let refused = InitImage::new(&picture, None, Some(strength), SIZE).unwrap_err();
            assert!(matches!(refused, RequestError::Strength { .. }), "{strength}");
        }
        let strength = |mask| InitImage::new(&picture, mask, None, SIZE).unwrap().strength();
        assert_eq!([strength(None), strength(Some(&picture))], [0.8, 1.0]);
    }
}
