//! The names of a UNet's weights in the original Stable Diffusion, which counts blocks where diffusers counts levels.
//!
//! ```text
//! input_blocks    conv_in, then for each level its residual blocks, and what halves the map
//! middle_block    residual block, attention, residual block
//! output_blocks   for each level one residual block more; what doubles the map belongs to the last of them
//! ```

/// What names follow from.
#[derive(Debug, Clone)]
pub struct Blocks {
    /// Residual blocks of a level on the way down.
    pub layers: usize,
    /// For each level on the way up, whether it has attention.
    pub attends_up: Vec<bool>,
}

/// Names of single layers in diffusers and in the original.
const WHOLE: [(&str, &str); 8] = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("time_embedding.cond_proj", "time_embed.cond_proj"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
];
/// Layers of a residual block in diffusers and in the original.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The name in the original; as it is where that has none.
pub fn original(name: &str, blocks: &Blocks) -> String {
    let (module, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == module) {
        return format!("{theirs}.{kind}");
    }
    let parts: Vec<&str> = module.split('.').collect();
    let number = |at: usize| parts.get(at).and_then(|part| part.parse::<usize>().ok()).unwrap_or(0);
    let per_level = blocks.layers + 1;
    let module = match parts[..] {
        ["mid_block", "attentions", _, ref rest @ ..] => format!("middle_block.1.{}", rest.join(".")),
        ["mid_block", "resnets", _, layer] => format!("middle_block.{}.{}", 2 * number(2), resnet(layer)),
        ["down_blocks", _, "downsamplers", ..] => {
            format!("input_blocks.{}.0.op", number(1) * per_level + per_level)
        }
        ["down_blocks", _, "resnets", _, layer] => {
            format!("input_blocks.{}.0.{}", 1 + number(1) * per_level + number(3), resnet(layer))
        }
        ["down_blocks", _, "attentions", _, ref rest @ ..] => {
            format!("input_blocks.{}.1.{}", 1 + number(1) * per_level + number(3), rest.join("."))
        }
        ["up_blocks", _, "upsamplers", ..] => {
            let after = if blocks.attends_up.get(number(1)) == Some(&true) { 2 } else { 1 };
            format!("output_blocks.{}.{after}.conv", number(1) * per_level + blocks.layers)
        }
        ["up_blocks", _, "resnets", _, layer] => {
            format!("output_blocks.{}.0.{}", number(1) * per_level + number(3), resnet(layer))
        }
        ["up_blocks", _, "attentions", _, ref rest @ ..] => {
            format!("output_blocks.{}.1.{}", number(1) * per_level + number(3), rest.join("."))
        }
        _ => return name.to_owned(),
    };
    format!("{module}.{kind}")
}

fn resnet(layer: &str) -> &str {
    RESNET.iter().find(|(ours, _)| *ours == layer).map_or(layer, |(_, theirs)| theirs)
}
