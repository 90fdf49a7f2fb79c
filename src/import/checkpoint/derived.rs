//! Configurations that follow from the shapes of weights, for files that bring none.
//!
//! Sizes are the weights' own; what no shape tells is what the published models have: 32 groups of channels, eight heads in
//! Stable Diffusion 1 and heads of 64 channels in the others, the scaling factors.

use serde_json::{Value, json};

use super::Checkpoint;
use super::single_file::{AUTOENCODER, Family, Network, UNET};
use crate::import::architectures::ArchitectureError;
use crate::names::unet::Blocks;
use crate::tensor_file::TensorFile;

/// Channels of a head, but in the UNet of Stable Diffusion 1.
const HEAD_CHANNELS: usize = 64;
/// More blocks, layers or levels than any model has.
const COUNT_MAX: usize = 1000;

/// Shapes by names that begin alike.
struct Shapes<'a> {
    file: &'a TensorFile,
    prefix: &'static str,
}

impl Shapes<'_> {
    fn get(&self, name: &str) -> Option<&[usize]> {
        self.file.shape(&format!("{}{name}", self.prefix))
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// One size of a weight.
    fn size(&self, name: &str, at: usize) -> Result<usize, ArchitectureError> {
        let missing = || ArchitectureError::Missing {
            file: self.file.path().to_owned(),
            tensor: format!("{}{name}", self.prefix),
        };
        self.get(name).and_then(|shape| shape.get(at).copied()).ok_or_else(missing)
    }

    /// How many of a kind there are, counted from 0.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..COUNT_MAX).take_while(|&at| self.has(&name(at))).count()
    }
}

/// A level of a UNet on the way down.
#[derive(Default)]
struct Level {
    width: usize,
    layers: usize,
    /// Transformer blocks of each of its attentions.
    depth: usize,
}

/// The UNet's configuration, and what the names of its weights follow from.
pub fn unet(file: &TensorFile, family: Family) -> Result<(Value, Blocks), ArchitectureError> {
    let shapes = Shapes { file, prefix: UNET };
    let depth =
        |block: &str| shapes.count(|at| format!("{block}.1.transformer_blocks.{at}.attn2.to_k.weight"));
    let mut levels = vec![Level::default()];
    for at in 1..COUNT_MAX {
        let block = format!("input_blocks.{at}");
        let last = levels.len() - 1;
        if shapes.has(&format!("{block}.0.op.weight")) {
            levels.push(Level::default());
        } else if shapes.has(&format!("{block}.0.out_layers.3.weight")) {
            let width = shapes.size(&format!("{block}.0.out_layers.3.weight"), 0)?;
            levels[last] = Level { width, layers: levels[last].layers + 1, depth: depth(&block) };
        } else {
            break;
        }
    }
    let layers = levels[0].layers;
    let has_middle = shapes.has("middle_block.0.in_layers.0.weight");
    let middle = depth("middle_block");
    let up = |level: usize| depth(&format!("output_blocks.{}", level * (layers + 1)));
    let attends_up: Vec<bool> = (0..levels.len()).map(|level| up(level) > 0).collect();
    let kinds = |attends: Vec<bool>, with: &str, without: &str| {
        attends.iter().map(|&attends| if attends { with } else { without }.to_owned()).collect::<Vec<_>>()
    };
    let attends_down = levels.iter().map(|level| level.depth > 0).collect();
    let attention = levels.iter().position(|level| level.depth > 0);
    let projection = attention.map(|level| format!("input_blocks.{}.1", 1 + level * (layers + 1)));
    let of_attention = |name: &str| projection.as_ref().map(|block| format!("{block}.{name}"));
    let to_k = of_attention("transformer_blocks.0.attn2.to_k.weight");
    let heads = |level: &Level| match family {
        Family::One => 8,
        _ => (level.width / HEAD_CHANNELS).max(1),
    };
    // The middle takes its depth from the last level, which may have no attention of its own.
    let depths = levels.iter().map(|level| if level.depth > 0 { level.depth } else { middle.max(1) });
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": if family == Family::Xl { 128 } else { 64 },
        "in_channels": shapes.size("input_blocks.0.0.weight", 1)?,
        "out_channels": shapes.size("out.2.weight", 0)?,
        "block_out_channels": levels.iter().map(|level| level.width).collect::<Vec<_>>(),
        "layers_per_block": layers,
        "down_block_types": kinds(attends_down, "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": kinds(attends_up.clone(), "CrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": has_middle.then_some("UNetMidBlock2DCrossAttn"),
        "transformer_layers_per_block": depths.collect::<Vec<_>>(),
        "attention_head_dim": levels.iter().map(heads).collect::<Vec<_>>(),
        "cross_attention_dim": to_k.map(|name| shapes.size(&name, 1)).transpose()?,
        "use_linear_projection":
            of_attention("proj_in.weight").is_some_and(|name| shapes.get(&name).is_some_and(|s| s.len() == 2)),
    });
    if shapes.has("time_embed.cond_proj.weight") {
        config["time_cond_proj_dim"] = json!(shapes.size("time_embed.cond_proj.weight", 1)?);
    }
    if shapes.has("label_emb.0.0.weight") {
        config["addition_embed_type"] = json!("text_time");
        config["addition_time_embed_dim"] = json!(256);
        config["projection_class_embeddings_input_dim"] = json!(shapes.size("label_emb.0.0.weight", 1)?);
    }
    Ok((config, Blocks { layers, attends_up }))
}

/// The autoencoder's configuration, and how many levels it has.
pub fn autoencoder(file: &TensorFile, family: Family) -> Result<(Value, usize), ArchitectureError> {
    let shapes = Shapes { file, prefix: AUTOENCODER };
    let block = |level: usize, at: usize| format!("encoder.down.{level}.block.{at}.conv2.weight");
    let levels = shapes.count(|level| block(level, 0));
    let widths = (0..levels).map(|level| shapes.size(&block(level, 0), 0)).collect::<Result<Vec<_>, _>>()?;
    let config = json!({
        "_class_name": "AutoencoderKL",
        "in_channels": shapes.size("encoder.conv_in.weight", 1)?,
        "out_channels": shapes.size("decoder.conv_out.weight", 0)?,
        "latent_channels": shapes.size("decoder.conv_in.weight", 1)?,
        "block_out_channels": widths,
        "layers_per_block": shapes.count(|at| block(0, at)),
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "scaling_factor": if family == Family::Xl { 0.13025 } else { 0.18215 },
    });
    Ok((config, levels))
}

/// A text encoder's configuration; `drops_last` if its last layer is not computed.
pub fn text_encoder(
    checkpoint: &Checkpoint,
    network: &Network,
    drops_last: bool,
) -> Result<Value, ArchitectureError> {
    let size = |name: &str, at: usize| {
        let place = || network.places(name).swap_remove(0).name;
        let missing = || ArchitectureError::Missing { file: checkpoint.path().to_owned(), tensor: place() };
        checkpoint.shape(name).and_then(|shape| shape.get(at).copied()).ok_or_else(missing)
    };
    let layer = |at: usize| format!("text_model.encoder.layers.{at}.mlp.fc1.weight");
    let layers = (0..COUNT_MAX).take_while(|&at| checkpoint.shape(&layer(at)).is_some()).count();
    let width = size("text_model.embeddings.token_embedding.weight", 1)?;
    let is_open_clip = matches!(network, Network::OpenClip(_));
    Ok(json!({
        "architectures": [if drops_last { "CLIPTextModel" } else { "CLIPTextModelWithProjection" }],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": size(&layer(0), 0)?,
        "num_hidden_layers": layers - usize::from(drops_last),
        "num_attention_heads": (width / HEAD_CHANNELS).max(1),
        "max_position_embeddings": size("text_model.embeddings.position_embedding.weight", 0)?,
        "vocab_size": size("text_model.embeddings.token_embedding.weight", 0)?,
        "hidden_act": if is_open_clip { "gelu" } else { "quick_gelu" },
        "layer_norm_eps": 1e-5,
        // The end of a text is the largest id.
        "eos_token_id": 2,
    }))
}
