//! What the stages of a picture will take, before anything is computed.

use std::sync::Arc;

use super::{Request, Size, example};
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

/// Checks that a UNet can be asked in the ways that a request has to save time, and that there is memory for them.
///
/// # Errors
/// As [`Component::prepare`], [`EngineError::NoDeepFeatures`] and [`EngineError::NoSelfAttention`].
pub fn check_approximations(
    bundle: &Arc<Bundle>,
    request: &Request,
    resources: &Resources,
) -> Result<(), EngineError> {
    if request.feature_cache == 1 && request.token_merging.is_none() {
        return Ok(());
    }
    let kind = bundle::Component::Unet;
    let mut unet = Component::load(bundle, kind, resources)?;
    unet.merge_tokens(request.token_merging)?;
    let inputs = example(bundle, kind, unet.inputs(), request.size);
    if request.feature_cache > 1 {
        FeatureCache::new(&mut unet, request.feature_cache)?.prepare(&mut unet, &inputs)?;
    } else {
        unet.prepare(&inputs)?;
    }
    Ok(())
}
