//! The values that travel between the stages. Each checks its shape once, when it is made; behind that
//! door the lengths are known to agree.

use std::borrow::Cow;

/// A buffer whose length is not the product of the shape that it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: shape {shape:?} needs {expected} values, got {got}")]
pub struct ShapeError {
    /// The type that was being made.
    pub what: &'static str,
    /// The shape asked for, outermost dimension first.
    pub shape: Vec<usize>,
    /// The product of `shape`, or `usize::MAX` where it overflows.
    pub expected: usize,
    /// The length of the buffer.
    pub got: usize,
}

impl ShapeError {
    /// That `what` cannot be made in `shape` from `got` values.
    pub fn new(what: &'static str, shape: &[usize], got: usize) -> Self {
        let expected = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        Self { what, shape: shape.to_vec(), expected, got }
    }
}

fn check(what: &'static str, shape: &[usize], got: usize) -> Result<(), ShapeError> {
    let error = ShapeError::new(what, shape, got);
    if error.expected == got && got != 0 { Ok(()) } else { Err(error) }
}

/// What the text encoders make of a prompt: f32 `[tokens, width]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEmbedding {
    values: Vec<f32>,
    tokens: usize,
    width: usize,
    pooled: Vec<f32>,
    class_labels: Vec<f32>,
}

impl TextEmbedding {
    /// Wraps `values`, `[tokens, width]` row-major.
    ///
    /// # Errors
    /// [`ShapeError`] if the length is not `tokens * width`, or is 0.
    pub fn new(values: Vec<f32>, tokens: usize, width: usize) -> Result<Self, ShapeError> {
        check("text embedding", &[tokens, width], values.len())?;
        Ok(Self { values, tokens, width, pooled: Vec::new(), class_labels: Vec::new() })
    }

    /// The same with one embedding for all of the prompt.
    pub fn with_pooled(self, pooled: Vec<f32>) -> Self {
        Self { pooled, ..self }
    }

    /// The same with the embedding of a picture, for a network that is shown one.
    pub fn with_class_labels(self, class_labels: Vec<f32>) -> Self {
        Self { class_labels, ..self }
    }

    /// The states of both, side by side, with the other's pooled embedding.
    ///
    /// # Errors
    /// [`ShapeError`] if the other has another number of tokens.
    pub fn beside(self, other: Self) -> Result<Self, ShapeError> {
        check("second text embedding", &[self.tokens, other.width], other.values.len())?;
        let rows = self.values.chunks_exact(self.width).zip(other.values.chunks_exact(other.width));
        let values = rows.flat_map(|(a, b)| a.iter().chain(b)).copied().collect();
        Ok(Self { values, width: self.width + other.width, pooled: other.pooled, ..self })
    }

    /// As many zeros.
    pub fn zeros(&self) -> Self {
        let zeros = |values: &[f32]| vec![0.0; values.len()];
        let (values, pooled, class_labels) =
            (zeros(&self.values), zeros(&self.pooled), zeros(&self.class_labels));
        Self { values, pooled, class_labels, ..*self }
    }

    /// The values, `[tokens, width]` row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One embedding for all of the prompt, of models that are told it; else empty.
    pub fn pooled(&self) -> &[f32] {
        &self.pooled
    }

    /// The embedding of a picture, for a network that is shown one; else empty, which it knows as zeros.
    pub fn class_labels(&self) -> &[f32] {
        &self.class_labels
    }

    /// The number of tokens, the model's context length.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The width of one token's hidden state.
    pub fn width(&self) -> usize {
        self.width
    }
}

/// A sentence as a prior reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    /// A state for each token of the context, with the embedding of the whole.
    pub embedding: TextEmbedding,
    /// How many of the tokens are not padding.
    pub tokens: usize,
}

/// A picture in the autoencoder's space: planar f32 `[channels, height_cells, width_cells]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    values: Vec<f32>,
    channels: usize,
    height_cells: usize,
    width_cells: usize,
}

impl Latents {
    /// Wraps `values`, planar `[channels, height_cells, width_cells]`.
    ///
    /// # Errors
    /// [`ShapeError`] if the length is not the product of the three, or is 0.
    pub fn new(
        values: Vec<f32>,
        channels: usize,
        height_cells: usize,
        width_cells: usize,
    ) -> Result<Self, ShapeError> {
        check("latents", &[channels, height_cells, width_cells], values.len())?;
        Ok(Self { values, channels, height_cells, width_cells })
    }

    /// The values, planar `[channels, height_cells, width_cells]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// `[1, channels, height_cells, width_cells]`, the shape that graphs and `.npy` files use.
    pub fn shape(&self) -> [usize; 4] {
        [1, self.channels, self.height_cells, self.width_cells]
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The height in latent cells.
    pub fn height_cells(&self) -> usize {
        self.height_cells
    }

    /// The width in latent cells.
    pub fn width_cells(&self) -> usize {
        self.width_cells
    }
}

/// A finished picture: 8 bits a channel, interleaved RGB `[height_px, width_px, 3]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb8 {
    pixels: Vec<u8>,
    width_px: usize,
    height_px: usize,
}

impl Rgb8 {
    /// Wraps `pixels`, interleaved `[height_px, width_px, 3]`.
    ///
    /// # Errors
    /// [`ShapeError`] if the length is not `height_px * width_px * 3`, or is 0.
    pub fn new(pixels: Vec<u8>, width_px: usize, height_px: usize) -> Result<Self, ShapeError> {
        check("picture", &[height_px, width_px, 3], pixels.len())?;
        Ok(Self { pixels, width_px, height_px })
    }

    /// From `values`, planar `[3, height_px, width_px]` and -1 to 1; what is beyond is clamped. Halves are rounded to even, as
    /// numpy's `round` does in diffusers' image processor.
    ///
    /// # Errors
    /// [`ShapeError`] if the length is not `3 * height_px * width_px`, or is 0.
    pub fn from_planes(values: &[f32], width_px: usize, height_px: usize) -> Result<Self, ShapeError> {
        check("picture", &[3, height_px, width_px], values.len())?;
        let plane = width_px * height_px;
        let to_byte = |x: f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let bytes = (0..plane).flat_map(|at| [at, at + plane, at + 2 * plane]).map(|at| to_byte(values[at]));
        Self::new(bytes.collect(), width_px, height_px)
    }

    /// The same, so many times as wide and as high: every pixel becomes a square.
    pub fn enlarged(&self, times: usize) -> Cow<'_, Self> {
        if times <= 1 {
            return Cow::Borrowed(self);
        }
        let mut pixels = Vec::with_capacity(self.pixels.len() * times * times);
        for line in self.pixels.chunks_exact(3 * self.width_px) {
            let start = pixels.len();
            line.chunks_exact(3).for_each(|pixel| pixels.extend(pixel.repeat(times)));
            let end = pixels.len();
            (1..times).for_each(|_| pixels.extend_from_within(start..end));
        }
        let (width_px, height_px) = (self.width_px * times, self.height_px * times);
        Cow::Owned(Self { pixels, width_px, height_px })
    }

    /// The pixels, interleaved `[height_px, width_px, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The width in pixels.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// The height in pixels.
    pub fn height_px(&self) -> usize {
        self.height_px
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_clamped_and_rounded_half_to_even() {
        let cases = [(-1.0, 0), (1.0, 255), (0.0, 128), (-7.0, 0), (7.0, 255), (f32::NAN, 0)];
        for (x, byte) in cases {
            assert_eq!(Rgb8::from_planes(&[x; 3], 1, 1).unwrap().pixels(), [byte; 3], "{x}");
        }
        let planes = [-1.0, 1.0, 0.0, 0.0, 1.0, -1.0];
        assert_eq!(Rgb8::from_planes(&planes, 2, 1).unwrap().pixels(), [0, 128, 255, 255, 128, 0]);
        assert!(Rgb8::from_planes(&planes, 1, 1).is_err());
    }

    #[test]
    fn pixels_become_squares() {
        let picture = Rgb8::new(vec![1, 2, 3, 4, 5, 6], 2, 1).unwrap();
        let large = picture.enlarged(2);
        assert_eq!((large.width_px(), large.height_px()), (4, 2));
        assert_eq!(large.pixels(), [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6].repeat(2));
        assert_eq!(*picture.enlarged(1), picture);
    }
}
