//! What the stages of a picture will take, before anything is computed.

use std::sync::Arc;

use super::{Size, example};
use crate::bundle::{self, Bundle};
use crate::denoise::FeatureCache;
use crate::denoise::network::prepare_both;
use crate::engine::{Component, EngineError, Footprint, Resources, Tile};

/// What tiles are blended in takes for each pixel: three channels and a weight.
const BLENDED_PIXEL_BYTES: usize = 4 * size_of::<f32>();

/// What each of these components will take for one picture of `size`, which may need guidance. Stages follow one another,
/// so the picture takes as much as the largest of its stages.
///
/// # Errors
/// As [`Component::prepare`]: among others, that a component takes more memory than `resources` allow.
pub fn footprints(
    bundle: &Arc<Bundle>,
    components: &[bundle::Component],
    size: Size,
    resources: &Resources,
) -> Result<Vec<Footprint>, EngineError> {
    let footprint = |&kind: &bundle::Component| {
        let mut component = Component::load(bundle, kind, resources)?;
        let mut prepare = |size| component.prepare(&example(bundle, kind, component.inputs(), size));
        match (kind, resources.tile) {
            (bundle::Component::VaeDecoder, Tile::Blend(pixels)) => {
                let tile = size.at_most(pixels.next_multiple_of(bundle.pipeline().vae_scale_factor));
                let mut footprint = prepare(tile)?;
                footprint.peak_anon_bytes += BLENDED_PIXEL_BYTES * size.width_px * size.height_px;
                Ok(footprint)
            }
            (bundle::Component::Unet, _) => {
                let one = prepare(size)?;
                let inputs = example(bundle, kind, component.inputs(), size);
                Ok(prepare_both(&mut component, &inputs, resources.memory_bytes).unwrap_or(one))
            }
            _ => prepare(size),
        }
    };
    components.iter().map(footprint).collect()
}

/// Checks that a UNet can use its deep features again, and that there is memory for a picture of `size`.
///
/// # Errors
/// As [`Component::prepare`], and [`EngineError::NoDeepFeatures`].
pub fn check_feature_cache(
    bundle: &Arc<Bundle>,
    every: usize,
    size: Size,
    resources: &Resources,
) -> Result<(), EngineError> {
    if every == 1 {
        return Ok(());
    }
    let kind = bundle::Component::Unet;
    let mut unet = Component::load(bundle, kind, resources)?;
    let mut features = FeatureCache::new(&mut unet, every)?;
    let inputs = example(bundle, kind, unet.inputs(), size);
    features.prepare(&mut unet, &inputs)?;
    Ok(())
}
