//! What `open` leaves unread: every byte behind the header.

use super::{Blob, BlobName, Bundle, BundleError, Component, TensorEntry, Values};

impl Bundle {
    /// Reads the whole file and compares every byte with what the header promises.
    ///
    /// # Errors
    /// The first of
    /// - [`BundleError::Padding`]: something lies between two blobs.
    /// - [`BundleError::BlobHash`]: a file, graph or tensor changed.
    /// - [`BundleError::Scale`]: a scale is no finite number.
    pub fn verify(&self) -> Result<(), BundleError> {
        self.verify_padding()?;
        for file in &self.header.files {
            self.verify_blob(BlobName::File(&file.name), &file.blob)?;
        }
        for component in &self.header.components {
            self.verify_blob(BlobName::Graph(component.name), &component.graph)?;
            for tensor in &component.tensors {
                self.verify_tensor(component.name, tensor)?;
            }
        }
        Ok(())
    }

    /// Reads one tensor of `component`, and compares it with its hash.
    ///
    /// # Errors
    /// - [`BundleError::BlobHash`]: it changed.
    /// - [`BundleError::Scale`]: a scale is no finite number.
    ///
    /// # Panics
    /// If `tensor` is not of this bundle.
    pub fn verify_tensor(&self, component: Component, tensor: &TensorEntry) -> Result<(), BundleError> {
        let name = BlobName::Tensor(component, tensor.name());
        self.verify_blob(name, tensor.blob())?;
        let Values::I8 { scales, .. } = self.tensor(tensor).values else { return Ok(()) };
        match scales.iter().position(|scale| !scale.is_finite()) {
            Some(index) => Err(BundleError::Scale { name: name.to_string(), index, got: scales[index] }),
            None => Ok(()),
        }
    }

    fn verify_blob(&self, name: BlobName<'_>, blob: &Blob) -> Result<(), BundleError> {
        let (expected, got) = (blob.blake3, blake3::hash(self.bytes(blob)));
        if expected == got {
            return Ok(());
        }
        Err(BundleError::BlobHash { name: name.to_string(), expected, got })
    }

    fn verify_padding(&self) -> Result<(), BundleError> {
        let ranges = || self.header.slots().map(|slot| slot.blob.range());
        for (before, after) in ranges().zip(ranges().skip(1)) {
            let padding = &self.map[before.end..after.start];
            if let Some(index) = padding.iter().position(|&byte| byte != 0) {
                return Err(BundleError::Padding { offset: before.end + index, got: padding[index] });
            }
        }
        Ok(())
    }
}
