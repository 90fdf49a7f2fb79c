//! A tensor as the header has it.

use serde::Serialize;

use super::{Blob, BlobName, BundleError, Component, Dtype, Extents, Layout, Scales};

/// The most dimensions that a tensor has.
const MAX_RANK: usize = 8;

/// The dimensions of a tensor, outermost first, none of them 0.
///
/// Of a linear layer's weight `[O, K]`; of a convolution's `[O, kh, kw, C]`, so that `K = kh * kw * C`.
type Shape = heapless::Vec<usize, MAX_RANK>;

/// Name, form and place of one tensor. Its length is known to follow from its form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorEntry {
    name: String,
    dtype: Dtype,
    shape: Shape,
    layout: Layout,
    #[serde(skip_serializing_if = "Option::is_none")]
    scales: Option<Scales>,
    blob: Blob,
    #[serde(skip)]
    extents: Extents,
}

impl TensorEntry {
    /// A tensor of `component` that is yet to be written.
    ///
    /// # Errors
    /// - [`BundleError::Rank`], [`BundleError::EmptyDimension`]: no such shape.
    /// - [`BundleError::NotAMatrix`]: the layout needs a matrix.
    /// - [`BundleError::ScalesMissing`], [`BundleError::ScalesUnexpected`]: `i8`, and nothing else, has
    ///   scales.
    /// - [`BundleError::TooLarge`]: its length cannot be counted.
    pub fn new(
        component: Component,
        name: String,
        dtype: Dtype,
        shape: &[usize],
        layout: Layout,
        scales: Option<Scales>,
    ) -> Result<Self, BundleError> {
        let blob_name = BlobName::Tensor(component, &name);
        let shape = check_shape(blob_name, shape, layout)?;
        check_scales(blob_name, dtype, scales)?;
        let extents = Extents::new(dtype, layout, scales, &shape)
            .ok_or_else(|| BundleError::TooLarge { name: blob_name.to_string() })?;
        let blob = Blob::unwritten(extents.len as u64);
        Ok(Self { name, dtype, shape, layout, scales, blob, extents })
    }

    /// The same tensor, written to `blob`.
    ///
    /// # Errors
    /// [`BundleError::TensorLen`] if `blob` is not as long as the tensor.
    pub(super) fn written(self, component: Component, blob: Blob) -> Result<Self, BundleError> {
        if blob.len != self.blob.len {
            let name = BlobName::Tensor(component, &self.name).to_string();
            return Err(BundleError::TensorLen { name, expected: self.blob.len, got: blob.len });
        }
        Ok(Self { blob, ..self })
    }

    /// The name, unique in its component.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How a value is stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions, without the padding of the layout.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The order of the values.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What shares a scale, for `i8`.
    pub fn scales(&self) -> Option<Scales> {
        self.scales
    }

    /// What the blob holds.
    pub fn extents(&self) -> Extents {
        self.extents
    }

    /// Where the values and scales lie.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    pub(super) fn blob_mut(&mut self) -> &mut Blob {
        &mut self.blob
    }
}

fn check_shape(name: BlobName<'_>, shape: &[usize], layout: Layout) -> Result<Shape, BundleError> {
    let name = || name.to_string();
    if shape.is_empty() || shape.len() > MAX_RANK {
        return Err(BundleError::Rank { name: name(), max: MAX_RANK, got: shape.len() });
    }
    if let Some(axis) = shape.iter().position(|&dim| dim == 0) {
        return Err(BundleError::EmptyDimension { name: name(), axis });
    }
    if layout == Layout::O8k4 && shape.len() < 2 {
        return Err(BundleError::NotAMatrix { name: name(), layout });
    }
    Ok(Shape::from_slice(shape).expect("at most MAX_RANK, as checked above"))
}

fn check_scales(name: BlobName<'_>, dtype: Dtype, scales: Option<Scales>) -> Result<(), BundleError> {
    match (dtype, scales) {
        (Dtype::I8, None) => Err(BundleError::ScalesMissing { name: name.to_string() }),
        (Dtype::F16 | Dtype::F32, Some(_)) => {
            Err(BundleError::ScalesUnexpected { name: name.to_string(), dtype })
        }
        (Dtype::I8, Some(_)) | (Dtype::F16 | Dtype::F32, None) => Ok(()),
    }
}
