//! A tensor's numbers, where they lie.

use half::f16;

use super::{Dtype, Layout, TensorEntry, cast};

/// A tensor in place.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The dimensions, without the padding of the layout.
    pub shape: &'a [usize],
    /// The order of the values, and of the scales with them.
    pub layout: Layout,
    /// The numbers.
    pub values: Values<'a>,
}

impl<'a> TensorView<'a> {
    /// `blob`: the bytes of `tensor`, at an address that is a multiple of 64.
    pub(super) fn new(tensor: &'a TensorEntry, blob: &'a [u8]) -> Self {
        let extents = tensor.extents();
        let values = match tensor.dtype() {
            Dtype::I8 => Values::I8 {
                values: cast::numbers(&blob[..extents.values]),
                scales: cast::numbers(&blob[extents.scales_offset..]),
            },
            Dtype::F16 => Values::F16(cast::numbers(blob)),
            Dtype::F32 => Values::F32(cast::numbers(blob)),
        };
        Self { shape: tensor.shape(), layout: tensor.layout(), values }
    }
}

/// The numbers of a tensor in the order of its layout, padding included: what is read, and what is
/// written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values<'a> {
    /// Integers, each of which stands for itself times its scale.
    I8 {
        /// In the order of the layout.
        values: &'a [i8],
        /// `[O][B]`, or `[ceil(O / 8)][B][8]` with layout `o8k4`.
        scales: &'a [f32],
    },
    /// Half-precision floats.
    F16(&'a [f16]),
    /// Single-precision floats.
    F32(&'a [f32]),
}

impl Values<'_> {
    /// How one of the values is stored.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::I8 { .. } => Dtype::I8,
            Self::F16(_) => Dtype::F16,
            Self::F32(_) => Dtype::F32,
        }
    }

    /// The bytes of the values, and the scales.
    pub(super) fn parts(&self) -> (&[u8], &[f32]) {
        match self {
            Self::I8 { values, scales } => (cast::bytes(values), scales),
            Self::F16(values) => (cast::bytes(values), &[]),
            Self::F32(values) => (cast::bytes(values), &[]),
        }
    }
}
