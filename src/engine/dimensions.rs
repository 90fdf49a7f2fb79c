//! The sizes of the dimensions that a component's graph leaves free.

use crate::bundle::Component;

/// Looks a number up in the configuration of a component.
pub type Numbers<'a> = dyn Fn(Component, &str) -> Option<usize> + 'a;

/// Dimension `at` of an input, for one picture of `size_px`, height and width, whose latent cells are `scale` pixels
/// wide. An image encoder has a size of its own, and so has what makes pictures larger.
pub fn free_dimension(
    numbers: &Numbers,
    component: Component,
    input: &str,
    at: usize,
    size_px: [usize; 2],
    scale: usize,
) -> usize {
    let of_prior = if component == Component::Prior { numbers(component, "num_embeddings") } else { None };
    let of_text = || numbers(Component::TextEncoder, "max_position_embeddings");
    let text = of_prior.or_else(of_text).unwrap_or(77);
    let channels = match (component, input) {
        (Component::Unet, "class_labels") => numbers(component, "projection_class_embeddings_input_dim"),
        (Component::Unet, "encoder_hidden_states") => numbers(component, "cross_attention_dim"),
        (Component::Unet, "timestep_cond") => numbers(component, "time_cond_proj_dim"),
        (Component::Prior, "proj_embedding") => {
            numbers(component, "embedding_proj_dim").or_else(|| numbers(component, "embedding_dim"))
        }
        (Component::Prior, _) => numbers(component, "embedding_dim"),
        (Component::TextProj, _) => numbers(component, "clip_embeddings_dim"),
        (Component::VaeDecoder, _) => numbers(component, "latent_channels"),
        (Component::VaeEncoder | Component::Unet | Component::SuperResFirst | Component::SuperResLast, _) => {
            numbers(component, "in_channels")
        }
        _ => numbers(component, "num_channels").or(Some(3)),
    };
    let [height, width] = match component {
        Component::VaeEncoder => size_px,
        Component::ImageEncoder | Component::SafetyChecker => {
            [numbers(component, "image_size").unwrap_or(224); 2]
        }
        Component::SuperResFirst | Component::SuperResLast => {
            [numbers(component, "sample_size").unwrap_or(256); 2]
        }
        _ => size_px.map(|px| px / scale),
    };
    match (input, at) {
        (_, 0) => 1,
        ("input_ids" | "encoder_hidden_states" | "attention_mask", 1) => text,
        ("encoder_hidden_states", _) | (_, 1) => channels.unwrap_or(4),
        (_, 2) => height,
        _ => width,
    }
}
