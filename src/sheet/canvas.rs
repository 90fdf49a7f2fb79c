//! Pixels that can be drawn on.

use crate::tensor::Rgb8;

/// Red, green and blue.
pub type Colour = [u8; 3];

/// What is not drawn on.
pub const PAPER: Colour = [252, 251, 248];

/// A picture in the making; what is drawn beside it is lost.
pub struct Canvas {
    pixels: Vec<Colour>,
    width_px: usize,
    height_px: usize,
}

impl Canvas {
    /// Of blank paper.
    pub fn new(width_px: usize, height_px: usize) -> Self {
        Self { pixels: vec![PAPER; width_px * height_px], width_px, height_px }
    }

    /// Canvases of one width, one below the other.
    pub fn stacked(width_px: usize, parts: &[Self]) -> Self {
        let mut all = Self::new(width_px, 0);
        for part in parts {
            assert_eq!(part.width_px, width_px, "canvases of two widths");
            all.pixels.extend(&part.pixels);
            all.height_px += part.height_px;
        }
        all
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, [x, y]: [usize; 2], [width, height]: [usize; 2], colour: Colour) {
        for row in y..(y + height).min(self.height_px) {
            let (from, to) = (x.min(self.width_px), (x + width).min(self.width_px));
            self.pixels[row * self.width_px..][from..to].fill(colour);
        }
    }

    /// Puts a picture there.
    pub fn put(&mut self, [x, y]: [usize; 2], picture: &Rgb8) {
        for (at, pixel) in picture.pixels().chunks_exact(3).enumerate() {
            let place = [x + at % picture.width_px(), y + at / picture.width_px()];
            self.fill(place, [1, 1], [pixel[0], pixel[1], pixel[2]]);
        }
    }

    /// What was drawn.
    ///
    /// # Panics
    /// If the canvas has no pixels.
    pub fn into_picture(self) -> Rgb8 {
        let pixels = self.pixels.into_flattened();
        Rgb8::new(pixels, self.width_px, self.height_px).expect("a canvas has pixels")
    }
}
