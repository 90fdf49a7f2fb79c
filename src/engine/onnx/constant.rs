//! A weight on its way into the bundle: where its numbers are, and in which order they are wanted.

use std::sync::Arc;

use tract_onnx::prelude::Tensor;

use super::OnnxError;
use super::initialiser::Initialisers;
use super::view::{Digit, View};

/// Numbers that are fixed in the file, seen through the transpositions on their way to where they are used.
#[derive(Debug, Clone)]
pub struct Constant {
    origin: Origin,
    /// The shape of the origin.
    shape: Vec<usize>,
    view: View,
}

#[derive(Debug, Clone)]
enum Origin {
    Initialiser(String),
    Literal(Arc<Tensor>),
}

impl Constant {
    /// The large initialiser `name`.
    pub(super) fn initialiser(name: &str, shape: &[usize]) -> Self {
        let view = View::whole(0, shape);
        Self { origin: Origin::Initialiser(name.to_owned()), shape: shape.to_vec(), view }
    }

    /// A tensor that stands in the graph itself, or follows from it.
    pub(super) fn literal(tensor: Arc<Tensor>) -> Self {
        let shape = tensor.shape().to_vec();
        let view = View::whole(0, &shape);
        Self { origin: Origin::Literal(tensor), shape, view }
    }

    /// The name that the file gives it, if it is one of its large initialisers.
    pub(super) fn given_name(&self) -> Option<&str> {
        match &self.origin {
            Origin::Initialiser(name) => Some(name),
            Origin::Literal(_) => None,
        }
    }

    /// The shape in which it is wanted.
    pub fn shape(&self) -> Vec<usize> {
        self.view.shape()
    }

    /// The same numbers with the dimensions in another order.
    pub(super) fn transpose(&self, permutation: &[usize]) -> Self {
        Self { view: self.view.transpose(permutation), ..self.clone() }
    }

    /// The same numbers in another shape; `None` where a view cannot say it.
    pub(super) fn reshape(&self, shape: &[usize]) -> Option<Self> {
        Some(Self { view: self.view.reshape(shape)?, ..self.clone() })
    }

    /// The same numbers without the dimensions of size 1.
    pub(super) fn squeezed(&self) -> Self {
        let dims = self.view.dims.iter().filter(|d| !d.is_empty()).cloned().collect();
        Self { view: View { value: 0, dims }, ..self.clone() }
    }

    /// The numbers, row-major in [`Constant::shape`].
    ///
    /// # Errors
    /// - [`OnnxError::Weight`] if its file fails.
    /// - [`OnnxError::NotFinite`] for NaN and infinity.
    pub fn read(&self, name: &str, initialisers: &Initialisers) -> Result<Vec<f32>, OnnxError> {
        let values = match &self.origin {
            Origin::Initialiser(key) => initialisers
                .get(key)
                .expect("a constant is made from an initialiser that is there")
                .read()
                .map_err(|source| OnnxError::Weight { name: name.to_owned(), source })?,
            Origin::Literal(tensor) => floats(tensor),
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(OnnxError::NotFinite { name: name.to_owned() });
        }
        Ok(self.arranged(values))
    }

    fn arranged(&self, values: Vec<f32>) -> Vec<f32> {
        let strides: Vec<usize> =
            (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product()).collect();
        let digits: Vec<Digit> = self.view.dims.concat();
        if self.view.dims == View::whole(0, &self.shape).dims {
            return values;
        }
        let mut arranged = Vec::with_capacity(values.len());
        visit(&digits, &strides, 0, &mut |at| arranged.push(values[at]));
        arranged
    }
}

fn visit(digits: &[Digit], strides: &[usize], at: usize, take: &mut impl FnMut(usize)) {
    let Some((digit, inner)) = digits.split_first() else { return take(at) };
    let step = digit.stride * strides[digit.axis];
    for i in 0..digit.size {
        visit(inner, strides, at + i * step, take);
    }
}

/// The elements of a tensor as f32, whatever number type it has.
pub(super) fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor
        .cast_to::<f32>()
        .ok()
        .and_then(|t| t.try_as_plain_ram().ok().and_then(|p| p.as_slice::<f32>().ok().map(<[f32]>::to_vec)))
        .unwrap_or_default()
}
