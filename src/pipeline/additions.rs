//! What is added to a model for its pictures: LoRAs, and the decoder of another model.

use std::sync::Arc;

use super::{Manifest, ManifestError};
use crate::bundle::Bundle;
use crate::lora::{Lora, LoraError};

/// LoRAs and a decoder, opened.
#[derive(Clone, Default)]
pub struct Additions {
    /// In the order in which they are added to the model's layers.
    pub loras: Vec<Lora>,
    /// The model whose decoder is used in place of the model's own.
    pub decoder: Option<Arc<Bundle>>,
}

impl Manifest {
    /// What the picture was made with, found among `given` by its hashes; the strengths are the manifest's.
    ///
    /// # Errors
    /// [`ManifestError::Added`] if something is not given, [`ManifestError::Damaged`] for a strength that is none.
    pub fn additions(&self, given: &Additions) -> Result<Additions, ManifestError> {
        let mut loras = Vec::with_capacity(self.loras.len());
        for used in &self.loras {
            let lora = given.loras.iter().find(|lora| lora.hash() == used.hash);
            let lora = lora.ok_or_else(|| ManifestError::Added {
                what: "the LoRA",
                name: used.name.clone(),
                hash: used.hash.clone(),
                flag: "--lora",
            })?;
            let damaged =
                |error: LoraError| ManifestError::Damaged { reason: error.to_string(), version: None };
            loras.push(lora.at(used.strength).map_err(damaged)?);
        }
        let Some(used) = &self.vae else { return Ok(Additions { loras, decoder: None }) };
        let decoder = given.decoder.as_ref().filter(|decoder| decoder.model_hash() == used.model_hash);
        let decoder = decoder.ok_or_else(|| ManifestError::Added {
            what: "the decoder of the model",
            name: used.model.clone(),
            hash: used.model_hash.clone(),
            flag: "--vae",
        })?;
        Ok(Additions { loras, decoder: Some(decoder.clone()) })
    }
}
