//! The bundle: a whole model in one `*.tintype` file, laid out so that it is used where it lies.
//!
//! A board has little memory and slow storage, so a model's weights are never copied into memory of
//! ours: the file is mapped, and a kernel reads its weights straight from the page cache. Two processes
//! share those pages, and the kernel may take back any that are idle. For that, the bytes on disk must
//! already be what a kernel wants: quantised, in its order, aligned.
//!
//! ```text
//! 0        preamble   magic, version, flags, length of the header, BLAKE3 of the header
//! 56       header     JSON, padded with spaces to a multiple of 64 KiB
//! 64 KiB   files      tokenizer and the like, as they were in the source
//!          graphs     of all components, in the order of the header
//! ...      tensors    of the first component        | once for each component,
//!                                                   | in the order of the header
//! ```
//!
//! The header names every blob with its offset, length and BLAKE3. Opening a bundle is then
//!
//! ```text
//! map the file; check the preamble; hash the header; parse it
//! for each tensor    its length must follow from (dtype, layout, scales, shape)
//! for each blob      its offset must be where the alignment rule puts it
//! the last blob must end where the file ends
//! ```
//!
//! Offsets in the header are thus a promise to be checked, not a freedom: there is one place where a
//! blob can be, so gaps, overlaps, and ranges outside the file cannot be written down. What `open`
//! returns needs no further checks. It does not read the weights, however; [`Bundle::verify`] does.
//!
//! `docs/format.md` describes the file byte by byte.

#[cfg(target_endian = "big")]
compile_error!("a bundle is read where it lies, and it is little-endian");

mod blob;
mod cast;
mod classes;
mod error;
mod header;
mod layout;
mod names;
mod preamble;
mod tensor;
mod verify;
mod view;
mod wire;
mod writer;

use std::path::Path;
use std::sync::Arc;

pub use blob::Blob;
pub use classes::{ClassName, Classes};
pub use error::BundleError;
pub use header::{Base, ComponentEntry, FileEntry, Header, Licence, Pipeline, SuperRes, Unclip};
pub use layout::{Extents, pack_o8k4, pack_o8k4_scales, unpack_o8k4, unpack_o8k4_scales};
pub use names::{Component, Dtype, Layout, PipelineKind, Scales};
pub use tensor::TensorEntry;
pub use view::{TensorView, Values};
pub use writer::{BundleWriter, WriteError};

use crate::map::{self, Map};
use blob::{BLOB_ALIGN, BlobName, SECTION_ALIGN};
use preamble::PREAMBLE_LEN;

/// An open bundle: its checked header, and the mapped file behind it.
#[derive(Debug)]
pub struct Bundle {
    map: Map,
    header: Header,
    header_hash: blake3::Hash,
    base: Option<Arc<Bundle>>,
}

impl Bundle {
    /// Maps the bundle at `path` and checks its header against the length of the file.
    ///
    /// If the header names a base, that is opened too, in the same folder. Reads nothing behind the headers. The file must
    /// not be written to while it is open; a new version
    /// of a model is installed by renaming it over the old one.
    ///
    /// # Errors
    /// [`BundleError::File`], which names `path` and has as its source what [`Header::parse`] found, or
    /// - [`BundleError::Read`] if the file cannot be opened or mapped,
    /// - [`BundleError::NotRegular`] if it is a folder, a pipe or a device,
    /// - [`BundleError::Base`], [`BundleError::BaseHash`], [`BundleError::BaseOfBase`] if its base cannot be used, or is another.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        Self::open_unnamed(path)
            .map_err(|source| BundleError::File { path: path.to_owned(), source: Box::new(source) })
    }

    fn open_unnamed(path: &Path) -> Result<Self, BundleError> {
        let bundle = Self::open_alone(path)?;
        let base = bundle.pipeline().base.as_ref().map(|base| open_base(path, base)).transpose()?;
        Ok(Self { base, ..bundle })
    }

    fn open_alone(path: &Path) -> Result<Self, BundleError> {
        let map = map::map(path)?;
        let (header_hash, json) = preamble::split(&map)?;
        let header = Header::from_json(json, map.len() as u64)?;
        Ok(Self { map, header, header_hash, base: None })
    }

    /// All that the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the components make a picture together.
    pub fn pipeline(&self) -> &Pipeline {
        &self.header.pipeline
    }

    /// The model that has what is not in this file, if there is one.
    pub fn base(&self) -> Option<&Arc<Self>> {
        self.base.as_ref()
    }

    /// The component of that name, if this model or its base has one.
    pub fn component(&self, component: Component) -> Option<&ComponentEntry> {
        let base = || self.base.as_ref()?.component(component);
        self.header.component(component).or_else(base)
    }

    /// The bundle that holds the component of that name: this one, or its base.
    pub fn holder(self: &Arc<Self>, component: Component) -> &Arc<Self> {
        let base = self.base.as_ref().filter(|_| self.header.component(component).is_none());
        base.unwrap_or(self)
    }

    /// The contents of a file that was bundled with this model or its base, such as `tokenizer/vocab.json`.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let own = self.header.files.iter().find(|file| file.name == name);
        own.map(|file| self.bytes(&file.blob)).or_else(|| self.base.as_ref()?.file(name))
    }

    /// A component's graph, as its importer wrote it.
    ///
    /// # Panics
    /// If `component` is not of this bundle.
    pub fn graph(&self, component: &ComponentEntry) -> &[u8] {
        self.bytes(&component.graph)
    }

    /// A tensor's values and scales, in place.
    ///
    /// # Panics
    /// If `tensor` is not of this bundle.
    pub fn tensor<'a>(&'a self, tensor: &'a TensorEntry) -> TensorView<'a> {
        TensorView::new(tensor, self.bytes(tensor.blob()))
    }

    /// Says that a tensor will be read soon.
    ///
    /// # Panics
    /// If `tensor` is not of this bundle.
    pub fn expect(&self, tensor: &TensorEntry) {
        map::expect(&self.map, tensor.blob().range());
    }

    /// Gives the pages of a component's weights back to the system, when nobody will read them soon.
    pub fn release(&self, component: &ComponentEntry) {
        if let (Some(first), Some(last)) = (component.tensors.first(), component.tensors.last()) {
            map::release(&self.map, first.blob().range().start..last.blob().range().end);
        }
    }

    /// 16 hexadecimal digits that name this model: the start of the header's BLAKE3.
    ///
    /// The header holds the hash of every blob, so two bundles that differ anywhere differ here.
    pub fn model_hash(&self) -> String {
        self.header_hash.to_hex()[..16].to_owned()
    }

    fn bytes(&self, blob: &Blob) -> &[u8] {
        &self.map[blob.range()]
    }
}

/// The base of the model file at `path`.
fn open_base(path: &Path, base: &Base) -> Result<Arc<Bundle>, BundleError> {
    let path = path.with_file_name(&base.file);
    let bundle = match Bundle::open_alone(&path) {
        Ok(bundle) => bundle,
        Err(source) => return Err(BundleError::Base { path, source: Box::new(source) }),
    };
    match bundle.model_hash() {
        _ if bundle.pipeline().base.is_some() => Err(BundleError::BaseOfBase { path }),
        got if got != base.model_hash => {
            Err(BundleError::BaseHash { path, expected: base.model_hash.clone(), got })
        }
        _ => Ok(Arc::new(bundle)),
    }
}
