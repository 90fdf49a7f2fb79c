//! Transformers' CLIP encoders, of texts and of pictures.

use super::builder::{Builder, Convolution, Made};
use super::config::Config;
use super::{ArchitectureError, Network};
use crate::engine::graph::{InputType, Op, TokenRule, Value};
use crate::kernels::activation::Function;

/// The end of a text in configurations that are wrong about it: what is meant is the largest id.
const LEGACY_END: usize = 2;

/// What both encoders' configurations say.
struct Shape {
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    epsilon: f32,
    function: Function,
}

/// Builds the text encoder, with a projection behind it if it has one. Beside the outputs that optimum's graphs have there
/// is every hidden state, the tokens' own first.
///
/// # Errors
/// [`ArchitectureError`].
pub fn text_encoder(config: &Config, mut b: Builder) -> Result<Network, ArchitectureError> {
    let shape = Shape::read(config)?;
    let vocabulary = config.number("vocab_size", Some(49408))?;
    let context = config.number("max_position_embeddings", Some(77))?;
    let rule = match config.optional("eos_token_id")? {
        None | Some(LEGACY_END) => TokenRule::LargestId,
        Some(id) => TokenRule::Id(id as i64),
    };
    let ids = b.input("input_ids", InputType::I64, &[None, None]);
    let embeddings = "text_model.embeddings";
    let h = b.embedding(&format!("{embeddings}.token_embedding"), ids, [vocabulary, shape.width])?;
    let h = b.add_positions(&format!("{embeddings}.position_embedding"), h, [context, shape.width])?;
    let states = shape.encoder(&mut b, "text_model", h, true)?;
    let last =
        b.layer_norm("text_model.final_layer_norm", states[states.len() - 1], shape.width, shape.epsilon)?;
    let pooled = b.pick_token("text_model", last, rule, Some(ids));
    // Stable Diffusion 2 does not use the projection that its file has.
    let is_projected = config.architecture().is_none_or(|name| name == "CLIPTextModelWithProjection");
    if is_projected && b.has("text_projection.weight") {
        let width = config.number("projection_dim", Some(b.size("text_projection.weight", 0)?))?;
        let embedding = b.linear("text_projection", pooled, [shape.width, width], false)?;
        b.output("text_embeds", embedding);
        b.output("last_hidden_state", last);
    } else {
        b.output("last_hidden_state", last);
        b.output("pooler_output", pooled);
    }
    for (at, &state) in states.iter().enumerate() {
        b.output(&format!("hidden_states.{at}"), state);
    }
    Ok(b.finish())
}

/// Builds the image encoder with its projection.
///
/// # Errors
/// [`ArchitectureError`].
pub fn image_encoder(config: &Config, mut b: Builder) -> Result<Network, ArchitectureError> {
    let shape = Shape::read(config)?;
    let side = config.number("image_size", Some(224))?;
    let patch = config.number("patch_size", Some(32))?;
    let channels = config.number("num_channels", Some(3))?;
    if patch > side {
        return Err(config.refuse("patch_size", "no more than image_size"));
    }
    let x = b.input("pixel_values", InputType::F32, &[None, Some(channels), Some(side), Some(side)]);
    let h = b.emit("pixel_values", Op::ChannelsLast, &[x]);
    let patches = Convolution {
        channels: [channels, shape.width],
        kernel: patch,
        stride: patch,
        pads: [0; 4],
        upsample: false,
        bias: false,
    };
    let embeddings = "vision_model.embeddings";
    let h = b.convolution(&format!("{embeddings}.patch_embedding"), h, patches)?;
    let h = b.prepend_token(&format!("{embeddings}.class_embedding"), h, shape.width)?;
    let tokens = 1 + (side / patch) * (side / patch);
    let h = b.add_positions(&format!("{embeddings}.position_embedding"), h, [tokens, shape.width])?;
    // The name is transformers' own.
    let h = b.layer_norm("vision_model.pre_layrnorm", h, shape.width, shape.epsilon)?;
    let states = shape.encoder(&mut b, "vision_model", h, false)?;
    let class = b.pick_token("vision_model", states[states.len() - 1], TokenRule::First, None);
    let pooled = b.layer_norm("vision_model.post_layernorm", class, shape.width, shape.epsilon)?;
    let width = config.number("projection_dim", Some(512))?;
    let embedding = b.linear("visual_projection", pooled, [shape.width, width], false)?;
    b.output("image_embeds", embedding);
    Ok(b.finish())
}

impl Shape {
    fn read(config: &Config) -> Result<Self, ArchitectureError> {
        let models = ["clip_text_model", "clip_vision_model", "clip"];
        if !config.word("model_type")?.is_none_or(|model| models.contains(&model)) {
            return Err(config.refuse("model_type", models.join(" or ")));
        }
        let function = match config.word("hidden_act")? {
            None | Some("quick_gelu") => Function::QuickGelu,
            Some("gelu") => Function::Gelu,
            Some(_) => return Err(config.refuse("hidden_act", "quick_gelu or gelu")),
        };
        let shape = Self {
            width: config.number("hidden_size", None)?,
            inner: config.number("intermediate_size", None)?,
            layers: config.number("num_hidden_layers", None)?,
            heads: config.number("num_attention_heads", None)?,
            epsilon: config.float("layer_norm_eps", 1e-5)?,
            function,
        };
        match shape.width.is_multiple_of(shape.heads) {
            true => Ok(shape),
            false => Err(config.refuse("num_attention_heads", "a number that divides hidden_size")),
        }
    }

    /// The layers; what goes into the first, and what comes out of each.
    fn encoder(
        &self,
        b: &mut Builder,
        model: &str,
        x: Value,
        causal: bool,
    ) -> Result<Vec<Value>, ArchitectureError> {
        let mut states = vec![x];
        for at in 0..self.layers {
            let module = format!("{model}.encoder.layers.{at}");
            states.push(self.layer(b, &module, states[at], causal)?);
        }
        Ok(states)
    }

    fn layer(&self, b: &mut Builder, module: &str, x: Value, causal: bool) -> Made {
        let at = |layer: &str| format!("{module}.{layer}");
        let width = self.width;
        let h = b.layer_norm(&at("layer_norm1"), x, width, self.epsilon)?;
        let q = b.linear(&at("self_attn.q_proj"), h, [width; 2], true)?;
        let k = b.linear(&at("self_attn.k_proj"), h, [width; 2], true)?;
        let v = b.linear(&at("self_attn.v_proj"), h, [width; 2], true)?;
        let h = b.attention(&at("self_attn"), [q, k, v], width, self.heads, causal);
        let h = b.linear(&at("self_attn.out_proj"), h, [width; 2], true)?;
        let x = b.add(module, x, h);
        let h = b.layer_norm(&at("layer_norm2"), x, width, self.epsilon)?;
        let h = b.linear(&at("mlp.fc1"), h, [width, self.inner], true)?;
        let h = b.activation(&at("mlp.activation_fn"), self.function, h);
        let h = b.linear(&at("mlp.fc2"), h, [self.inner, width], true)?;
        Ok(b.add(module, x, h))
    }
}
