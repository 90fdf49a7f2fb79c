//! numpy's files: `.npy` holds one array, `.npz` is a zip archive of them.

use std::io::{Cursor, Read as _, Write as _};

use npyz::{NpyFile, Order, TypeChar, WriterBuilder as _};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::engine::NamedTensor;

/// The most that one array of an archive may unpack to, against archives that unpack without end.
const ARRAY_MAX_BYTES: u64 = 4 << 30;

/// A `.npy` file of f32.
///
/// # Panics
/// If there are not as many values as the shape says.
pub fn to_npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd();
    let mut writer = writer.expect("memory can be written to");
    writer.extend(values.iter().copied()).expect("memory can be written to");
    writer.finish().expect("there are as many values as the shape says");
    bytes
}

/// The shape and the values of a `.npy` file, integers as f32 too, and what is true as 1.
///
/// # Errors
/// A sentence, if it is no such file, or holds other numbers.
pub fn from_npy(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let array = NpyFile::new(bytes).map_err(|e| format!("not a .npy file: {e}"))?;
    let shape: Option<Vec<usize>> = array.shape().iter().map(|&n| usize::try_from(n).ok()).collect();
    let shape = shape.ok_or("it is too large")?;
    if array.order() != Order::C && shape.len() > 1 {
        return Err("it is in Fortran order: save it with numpy.ascontiguousarray".into());
    }
    let kind = match array.dtype() {
        npyz::DType::Plain(plain) => Some(plain.type_char()),
        _ => None,
    };
    let values = match kind {
        Some(TypeChar::Int) => {
            array.into_vec::<i64>().map(|ids| ids.into_iter().map(|id| id as f32).collect())
        }
        Some(TypeChar::Bool) => array
            .into_vec::<bool>()
            .map(|flags| flags.into_iter().map(|flag| f32::from(u8::from(flag))).collect()),
        _ => array.into_vec::<f32>(),
    };
    values.map(|values| (shape, values)).map_err(|e| format!("neither float32, int64 nor bool: {e}"))
}

/// The arrays of an `.npz` file that have one of the names; those that are missing are left out.
///
/// # Errors
/// A sentence, if it is no such file, or an array is not one of [`from_npy`].
pub fn from_npz<'a>(bytes: &[u8], names: impl Iterator<Item = &'a str>) -> Result<Vec<NamedTensor>, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("not an .npz archive: {e}"))?;
    let mut tensors = Vec::new();
    for name in names {
        let Some(index) = archive.index_for_name(&format!("{name}.npy")) else { continue };
        let wrong = |reason: String| format!("{name}: {reason}");
        let file = archive.by_index(index).map_err(|e| wrong(e.to_string()))?;
        let mut bytes = Vec::new();
        file.take(ARRAY_MAX_BYTES).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
        let (shape, values) = from_npy(&bytes).map_err(wrong)?;
        tensors.push(NamedTensor::new(name, &shape, values));
    }
    Ok(tensors)
}

/// An `.npz` file, uncompressed as `numpy.savez` writes it.
pub fn to_npz(tensors: &[NamedTensor]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for tensor in tensors {
        archive.start_file(format!("{}.npy", tensor.name), options).expect("memory can be written to");
        archive.write_all(&to_npy(&tensor.shape, &tensor.values)).expect("memory can be written to");
    }
    archive.finish().expect("memory can be written to").into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        let tensors =
            vec![NamedTensor::new("a", &[2, 1], vec![1.5, -2.0]), NamedTensor::new("b", &[], vec![7.0])];
        let bytes = to_npz(&tensors);
        assert_eq!(from_npz(&bytes, ["a", "none", "b"].into_iter()).unwrap(), tensors);
        assert!(from_npz(b"PK", ["a"].into_iter()).unwrap_err().contains("npz"));
    }
}
