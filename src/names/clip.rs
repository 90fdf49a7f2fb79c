//! The names of a CLIP text encoder's weights, in transformers, which left out a prefix for a while, and in OpenCLIP.

use super::Place;

/// What newer versions of transformers leave out.
const PREFIXES: [&str; 2] = ["text_model.", "vision_model."];
/// Names in transformers and in OpenCLIP.
const WHOLE: [(&str, &str); 4] = [
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.weight", "ln_final.weight"),
    ("text_model.final_layer_norm.bias", "ln_final.bias"),
];
/// Parts of a layer's names in transformers and in OpenCLIP.
const PARTS: [(&str, &str); 5] = [
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
];
/// The projections that OpenCLIP keeps in one matrix, in its order.
const JOINT: [&str; 3] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];

/// The name without its prefix.
pub fn newer(name: &str) -> impl Iterator<Item = String> {
    PREFIXES.iter().filter_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned)
}

/// Where OpenCLIP keeps a weight.
pub fn open_clip(name: &str) -> Place {
    if name == "text_projection.weight" {
        return Place { transposed: true, ..Place::from("text_projection") };
    }
    if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == name) {
        return Place::from(*theirs);
    }
    let layer = name.replace("text_model.encoder.layers.", "transformer.resblocks.");
    for (part, projection) in JOINT.iter().enumerate() {
        if let Some((block, kind)) = layer.split_once(projection) {
            let kind = kind.trim_start_matches('.');
            return Place { part: Some((part, 3)), ..format!("{block}attn.in_proj_{kind}").into() };
        }
    }
    PARTS.iter().fold(layer, |name, (ours, theirs)| name.replace(ours, theirs)).into()
}
