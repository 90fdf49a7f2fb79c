//! The values that travel between the stages. Each checks its shape once, when it is made; behind that
//! door the lengths are known to agree.

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
