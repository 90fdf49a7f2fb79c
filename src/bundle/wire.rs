//! The header as it comes: numbers of any size, words of any kind. `check` turns it into what the rest
//! of the program may trust, and says of each thing that it refuses where that was.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Blob, BlobName, BundleError, ComponentEntry, Dtype, FileEntry, Layout, Licence, Pipeline, Scales,
    TensorEntry, names,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pipeline: Pipeline,
    licences: Vec<Licence>,
    files: Vec<FileEntry>,
    components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Component {
    name: String,
    config: Value,
    graph: Blob,
    tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    layout: String,
    scales: Option<String>,
    blob: Blob,
}

impl Header {
    pub fn check(self) -> Result<super::Header, BundleError> {
        let components = self.components.into_iter().map(Component::check).collect::<Result<_, _>>()?;
        let Self { pipeline, licences, files, .. } = self;
        Ok(super::Header { pipeline, licences, files, components })
    }
}

impl Component {
    fn check(self) -> Result<ComponentEntry, BundleError> {
        let Self { name, config, graph, tensors } = self;
        let name = names::Component::from_name(&name)
            .ok_or_else(|| unknown("component".to_owned(), "name", &name))?;
        let tensors = tensors.into_iter().map(|tensor| tensor.check(name)).collect::<Result<_, _>>()?;
        Ok(ComponentEntry { name, config, graph, tensors })
    }
}

impl Tensor {
    fn check(self, component: names::Component) -> Result<TensorEntry, BundleError> {
        let Self { name, dtype, shape, layout, scales, blob } = self;
        let blob_name = || BlobName::Tensor(component, &name).to_string();
        let dtype = Dtype::from_name(&dtype).ok_or_else(|| unknown(blob_name(), "dtype", &dtype))?;
        let layout = Layout::from_name(&layout).ok_or_else(|| unknown(blob_name(), "layout", &layout))?;
        let scales = scales
            .map(|scales| Scales::from_name(&scales).ok_or_else(|| unknown(blob_name(), "scales", &scales)))
            .transpose()?;
        let shape: Vec<usize> = shape
            .into_iter()
            .map(usize::try_from)
            .collect::<Result<_, _>>()
            .map_err(|_| BundleError::TooLarge { name: blob_name() })?;
        TensorEntry::new(component, name, dtype, &shape, layout, scales)?.written(component, blob)
    }
}

fn unknown(name: String, field: &'static str, got: &str) -> BundleError {
    BundleError::Unknown { name, field, got: got.to_owned() }
}
