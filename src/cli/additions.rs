//! LoRAs and decoders that are named on the command line.

use std::path::Path;
use std::sync::Arc;

use super::error::CliError;
use super::lora_arg::LoraArg;
use super::model;
use crate::bundle::Bundle;
use crate::engine::Resources;
use crate::lora::{self, Lora};
use crate::pipeline::{Additions, TextToImage};

/// Opens the files.
///
/// # Errors
/// [`CliError::Lora`], and those of [`model::decoder`].
pub fn open(loras: &[LoraArg], vae: Option<&Path>) -> Result<Additions, CliError> {
    let loras = loras.iter().map(|lora| Lora::open(&lora.path, lora.strength));
    let loras = loras.collect::<Result<_, _>>()?;
    Ok(Additions { loras, decoder: vae.map(model::decoder).transpose()? })
}

/// The pipeline that draws with them. Whoever judges pictures works with `resources` as they are: a LoRA does not change what a
/// picture is held against.
///
/// # Errors
/// [`CliError::Lora`], [`CliError::Request`]: what does not fit the model.
pub fn pipeline(
    bundle: &Arc<Bundle>,
    resources: &Resources,
    additions: &Additions,
) -> Result<TextToImage, CliError> {
    let adapters = Arc::new(lora::adapters(bundle, &additions.loras)?);
    let pipeline = TextToImage::new(bundle.clone(), Resources { adapters, ..resources.clone() });
    match &additions.decoder {
        Some(decoder) => Ok(pipeline.with_decoder(decoder.clone())?),
        None => Ok(pipeline),
    }
}
