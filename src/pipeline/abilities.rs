//! What a model's configuration says can be asked of it.

use crate::bundle::{Bundle, Component};

/// Channels that the UNet takes.
pub fn unet_channels(bundle: &Bundle) -> usize {
    let config = bundle.component(Component::Unet).map(|unet| &unet.config);
    let channels = config.and_then(|c| c["in_channels"].as_u64()).and_then(|n| usize::try_from(n).ok());
    channels.unwrap_or(bundle.pipeline().latent_channels)
}

/// Whether the UNet was made to draw parts of pictures: it is shown a mask and the latents of what that leaves.
pub fn draws_parts(bundle: &Bundle) -> bool {
    unet_channels(bundle) == 2 * bundle.pipeline().latent_channels + 1
}

/// Whether the UNet is told the guidance scale.
pub fn is_told_guidance(bundle: &Bundle) -> bool {
    let unet = bundle.component(Component::Unet);
    unet.is_some_and(|unet| unet.config["time_cond_proj_dim"].is_u64())
}

/// What every side is a multiple of: a latent cell, as often as the UNet halves the latents.
pub fn grid_px(bundle: &Bundle) -> usize {
    let config = bundle.component(Component::Unet).map(|unet| &unet.config);
    let levels = config.and_then(|c| c["block_out_channels"].as_array()).map_or(4, Vec::len);
    bundle.pipeline().vae_scale_factor << levels.clamp(1, 8).saturating_sub(1)
}
