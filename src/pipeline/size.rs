//! How large a picture is.

use crate::bundle::Pipeline;

/// Width and height of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// In pixels.
    pub width_px: usize,
    /// In pixels.
    pub height_px: usize,
}

impl Size {
    /// The size that a model draws when nobody asks for another.
    pub fn of_model(pipeline: &Pipeline) -> Self {
        Self { width_px: pipeline.default_width_px, height_px: pipeline.default_height_px }
    }

    /// The same, with no side longer than `pixels`.
    pub fn at_most(self, pixels: usize) -> Self {
        Self { width_px: self.width_px.min(pixels), height_px: self.height_px.min(pixels) }
    }
}
