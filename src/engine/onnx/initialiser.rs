//! The weights of an ONNX file, left where they are until one is asked for.
//!
//! The graph is analysed without them: tract would copy each one several times. A large initialiser becomes
//! an input of known shape, and its numbers are read one tensor at a time.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use half::f16;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{StringStringEntryProto, TensorProto};

use super::OnnxError;

/// One initialiser: its shape, and where its numbers are.
#[derive(Debug)]
pub struct Initialiser {
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    kind: Kind,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
}

#[derive(Debug)]
enum Place {
    Inline(Vec<u8>),
    Floats(Vec<f32>),
    External(Extent),
}

/// Where data lies beside the model.
#[derive(Debug)]
struct Extent {
    file: PathBuf,
    offset: u64,
}

/// The data location of ONNX for data that lies beside the model.
const EXTERNAL: i32 = DataLocation::External as i32;

/// All initialisers of a graph, by name.
#[derive(Debug, Default)]
pub struct Initialisers(HashMap<String, Initialiser>);

impl Initialisers {
    /// Takes the numbers out of `proto`, which stands in the folder `home`, and keeps them.
    ///
    /// # Errors
    /// - [`OnnxError::ElementType`] for anything but f32 and f16.
    /// - [`OnnxError::Shape`] if the shape overflows, has a dimension 0 or differs from the data's length.
    /// - [`OnnxError::ExternalData`] if the data file is not a plain file of this folder that is long enough.
    pub fn take(&mut self, proto: &mut TensorProto, home: &Path) -> Result<(), OnnxError> {
        let name = proto.name.clone();
        let kind = match DataType::try_from(proto.data_type) {
            Ok(DataType::Float) => Kind::F32,
            Ok(DataType::Float16) => Kind::F16,
            _ => return Err(OnnxError::ElementType { name, got: proto.data_type }),
        };
        let shape = checked_shape(&name, &proto.dims)?;
        let len_bytes = shape.iter().product::<usize>() * kind.size();
        let place = if proto.data_location == Some(EXTERNAL) {
            Place::External(external(&name, &proto.external_data, home, len_bytes)?)
        } else if proto.float_data.is_empty() {
            Place::Inline(std::mem::take(&mut proto.raw_data))
        } else {
            Place::Floats(std::mem::take(&mut proto.float_data))
        };
        let got = match &place {
            Place::Inline(bytes) => bytes.len(),
            Place::Floats(floats) => floats.len() * kind.size(),
            Place::External(_) => len_bytes,
        };
        if got != len_bytes {
            return Err(OnnxError::Shape { name, shape: proto.dims.clone() });
        }
        self.0.insert(name, Initialiser { shape, kind, place });
        Ok(())
    }

    /// The initialiser of that name.
    pub fn get(&self, name: &str) -> Option<&Initialiser> {
        self.0.get(name)
    }
}

/// Moves data that lies beside the model into `proto`, for what is not a weight and so has to be known when the graph is
/// analysed. Does nothing if it is there already.
///
/// # Errors
/// Those of [`Initialisers::take`], and [`OnnxError::Weight`] if the file fails.
pub fn fetch(proto: &mut TensorProto, home: &Path) -> Result<(), OnnxError> {
    if proto.data_location != Some(EXTERNAL) {
        return Ok(());
    }
    let name = &proto.name;
    let size = match DataType::try_from(proto.data_type) {
        Ok(DataType::Bool | DataType::Int8 | DataType::Uint8) => 1,
        Ok(DataType::Float16) => 2,
        Ok(DataType::Float | DataType::Int32) => 4,
        Ok(DataType::Double | DataType::Int64) => 8,
        _ => return Err(OnnxError::ElementType { name: name.clone(), got: proto.data_type }),
    };
    let len_bytes = checked_shape(name, &proto.dims)?.iter().product::<usize>() * size;
    let place = external(name, &proto.external_data, home, len_bytes)?;
    proto.raw_data =
        place.read(len_bytes).map_err(|source| OnnxError::Weight { name: name.clone(), source })?;
    proto.external_data.clear();
    proto.data_location = None;
    Ok(())
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl Initialiser {
    /// Reads the numbers, row-major in [`Initialiser::shape`].
    ///
    /// # Errors
    /// The file system's, for external data.
    pub fn read(&self) -> std::io::Result<Vec<f32>> {
        let bytes = match &self.place {
            Place::Floats(floats) => return Ok(floats.clone()),
            Place::Inline(bytes) => std::borrow::Cow::Borrowed(&bytes[..]),
            Place::External(extent) => {
                extent.read(self.shape.iter().product::<usize>() * self.kind.size())?.into()
            }
        };
        Ok(match self.kind {
            Kind::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Kind::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        })
    }
}

impl Extent {
    fn read(&self, len_bytes: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; len_bytes];
        open_plain(&self.file)?.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

fn checked_shape(name: &str, dims: &[i64]) -> Result<Vec<usize>, OnnxError> {
    let wrong = || OnnxError::Shape { name: name.to_owned(), shape: dims.to_vec() };
    let shape: Vec<usize> = dims
        .iter()
        .map(|&d| usize::try_from(d).ok().filter(|&d| d > 0))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let volume = shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d));
    volume.filter(|&v| v <= isize::MAX as usize).ok_or_else(wrong)?;
    Ok(shape)
}

/// Finds external data: a plain file name in the model's own folder, a regular file with one name, not a
/// link, and long enough.
fn external(
    name: &str,
    entries: &[StringStringEntryProto],
    home: &Path,
    len_bytes: usize,
) -> Result<Extent, OnnxError> {
    let refuse = |reason: String| OnnxError::ExternalData { name: name.to_owned(), reason };
    let entry = |key| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").ok_or_else(|| refuse("it names no file".into()))?;
    let mut parts = Path::new(location).components();
    let (Some(Component::Normal(plain)), None) = (parts.next(), parts.next()) else {
        return Err(refuse(format!("`{location}` is not a plain file name")));
    };
    let number = |key| match entry(key) {
        None => Ok(None),
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| refuse(format!("{key} `{text}` is no number")))
        }
    };
    let offset = number("offset")?.unwrap_or(0);
    if number("length")?.is_some_and(|length| length != len_bytes as u64) {
        return Err(refuse(format!("its length is not the {len_bytes} bytes of its shape")));
    }
    let file = home.join(plain);
    let metadata = open_plain(&file)
        .and_then(|f| f.metadata())
        .map_err(|e| refuse(format!("`{location}` cannot be opened: {e}")))?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(refuse(format!("`{location}` is not a regular file with one name")));
    }
    let end = offset.checked_add(len_bytes as u64);
    if end.is_none_or(|end| end > metadata.len()) {
        return Err(refuse(format!("`{location}` ends before its data: copy it again")));
    }
    Ok(Extent { file, offset })
}

/// Opens without following a link and without waiting for the other end of a pipe.
fn open_plain(file: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(location: &str, offset: usize) -> TensorProto {
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        TensorProto {
            name: "shape".into(),
            dims: vec![2],
            data_type: DataType::Int64 as i32,
            data_location: Some(EXTERNAL),
            external_data: vec![entry("location", location.to_owned()), entry("offset", offset.to_string())],
            ..TensorProto::default()
        }
    }

    #[test]
    fn what_is_no_weight_comes_from_beside_the_model() {
        let home = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..24).collect();
        std::fs::write(home.path().join("data"), &bytes).unwrap();
        let mut proto = beside("data", 8);
        fetch(&mut proto, home.path()).unwrap();
        assert_eq!((&proto.raw_data[..], proto.data_location), (&bytes[8..], None));
        assert!(proto.external_data.is_empty());
        for (location, offset) in [("data", 9), ("../data", 0), ("none", 0)] {
            let refused = fetch(&mut beside(location, offset), home.path());
            assert!(
                matches!(refused, Err(OnnxError::ExternalData { .. })),
                "{location} {offset}: {refused:?}"
            );
        }
    }
}
