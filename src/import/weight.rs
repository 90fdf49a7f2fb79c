//! One weight on its way into a bundle: first how it is stored is decided, then it is written.

use half::f16;

use super::precision::Stored;
use super::quantise::Scaling;
use super::report::Deviation;
use crate::bundle::{
    BundleError, BundleWriter, Component, Dtype, Layout, TensorEntry, Values, WriteError, pack_o8k4,
    pack_o8k4_scales,
};

/// How a weight is stored, known before any of it is written.
pub struct Plan {
    shape: Vec<usize>,
    stored: Stored,
    scaling: Option<Scaling>,
    /// What storing it so leaves off.
    pub error: Deviation,
}

impl Plan {
    /// Decides for a weight of these values, row-major in `shape`; see [`Scaling::of`] for `channel_error_max`.
    pub fn new(values: &[f32], shape: Vec<usize>, stored: Stored, channel_error_max: f64) -> Self {
        let mut error = Deviation::default();
        let mut scaling = None;
        match stored.dtype {
            Dtype::F32 => error.add(values, values.iter().copied()),
            Dtype::F16 => error.add(values, values.iter().map(|&x| f16::from_f32(x).to_f32())),
            Dtype::I8 => {
                // The rows of a table are read one at a time, and have one scale each.
                let is_table = stored.layout == Layout::Row;
                let error_max = if is_table { f64::INFINITY } else { channel_error_max };
                let found = Scaling::of(values, shape[0], error_max);
                error = found.error;
                scaling = Some(found);
            }
        }
        Self { shape, stored, scaling, error }
    }

    /// Its type.
    pub fn dtype(&self) -> Dtype {
        self.stored.dtype
    }

    /// How many numbers it has.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its entry in the header.
    ///
    /// # Errors
    /// [`BundleError`] if no bundle can hold its shape.
    pub fn entry(&self, component: Component, name: &str) -> Result<TensorEntry, BundleError> {
        let scales = self.scaling.as_ref().map(|scaling| scaling.kind);
        let Stored { dtype, layout } = self.stored;
        TensorEntry::new(component, name.to_owned(), dtype, &self.shape, layout, scales)
    }

    /// Writes the values that were decided on.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(
        &self,
        writer: &mut BundleWriter,
        component: Component,
        name: &str,
        values: &[f32],
    ) -> Result<(), WriteError> {
        match (self.stored.dtype, &self.scaling) {
            (Dtype::I8, Some(scaling)) => {
                let outputs = self.shape[0];
                let integers = self.laid_out(&scaling.integers(values, outputs));
                let per_channel = scaling.scales.len() / outputs;
                let scales = match self.stored.layout {
                    Layout::O8k4 => pack_o8k4_scales(&scaling.scales, outputs, per_channel),
                    Layout::Row => scaling.scales.clone(),
                };
                let values = Values::I8 { values: &integers, scales: &scales };
                writer.write_tensor(component, name, values)
            }
            (Dtype::F16, _) => {
                let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
                writer.write_tensor(component, name, Values::F16(&self.laid_out(&halves)))
            }
            _ => writer.write_tensor(component, name, Values::F32(&self.laid_out(values))),
        }
    }

    /// Row-major values in the order of the layout.
    fn laid_out<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        match self.stored.layout {
            Layout::O8k4 => pack_o8k4(values, self.shape[0], self.shape[1..].iter().product()),
            Layout::Row => values.to_vec(),
        }
    }
}
