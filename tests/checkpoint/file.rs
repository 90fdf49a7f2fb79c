//! Writes safetensors files.

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// A tensor's name, shape and numbers.
pub type Named = (String, Vec<usize>, Vec<f32>);

/// Writes tensors to a file, with numbers of this type.
pub fn write(path: &Path, tensors: &[Named], dtype: Dtype) {
    let bytes = |values: &[f32]| -> Vec<u8> {
        match dtype {
            Dtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    };
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| bytes(values)).collect();
    let views = tensors.iter().zip(&data).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    serialize_to_file(views, None, path).unwrap();
}
