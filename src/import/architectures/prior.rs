//! Diffusers' `PriorTransformer`: what a prompt says, and a noisy embedding of a picture, to the embedding of a picture.
//!
//! A transformer over the prompt's tokens, which are masked where they are padding, the prompt's embedding, the timestep, the
//! noisy embedding and a learned token, in this order; each sees what is before it, and the last becomes the prediction.

use serde_json::json;

use super::builder::{Builder, Made};
use super::config::Config;
use super::{ArchitectureError, Network};
use crate::engine::graph::{InputType, Op, TokenRule, Value};
use crate::kernels::activation::Function;

/// What is added to a variance, whatever the configuration says.
const EPSILON: f32 = 1e-5;
/// How much wider the feed-forward layers are.
const WIDENING: usize = 4;
/// What stands behind the prompt's tokens.
const ADDITIONAL: usize = 4;
/// What the computation does without.
const IGNORED: &[&str] = &["dropout"];

/// Builds the prior.
///
/// # Errors
/// [`ArchitectureError`].
pub fn prior(config: &Config, mut b: Builder) -> Result<Network, ArchitectureError> {
    config.class(&["PriorTransformer"])?;
    let heads = config.number("num_attention_heads", Some(32))?;
    let width = heads * config.number("attention_head_dim", Some(64))?;
    let layers = config.number("num_layers", Some(20))?;
    let embedding = config.number("embedding_dim", Some(768))?;
    let tokens = config.number("num_embeddings", Some(77))?;
    let time_width = config.optional("time_embed_dim")?.unwrap_or(width);
    let text = config.optional("embedding_proj_dim")?.unwrap_or(embedding);
    let image = config.optional("clip_embed_dim")?.unwrap_or(embedding);
    config.expect(&[
        ("additional_embeddings", json!(ADDITIONAL)),
        ("time_embed_act_fn", json!("silu")),
        ("norm_in_type", json!(null)),
        ("embedding_proj_norm_type", json!(null)),
        ("encoder_hid_proj_type", json!("linear")),
        ("added_emb_type", json!("prd")),
    ])?;
    config.finish(IGNORED)?;

    let noisy = b.input("hidden_states", InputType::F32, &[None, Some(embedding)]);
    let timestep = b.input("timestep", InputType::I64, &[None]);
    let prompt = b.input("proj_embedding", InputType::F32, &[None, Some(text)]);
    let states = b.input("encoder_hidden_states", InputType::F32, &[None, Some(tokens), Some(embedding)]);
    let mask = b.input("attention_mask", InputType::I64, &[None, Some(tokens)]);

    let waves = b.sinusoids("time_embedding", timestep, width, true, 0.0);
    let time = b.linear("time_embedding.linear_1", waves, [width, time_width], true)?;
    let time = b.activation("time_embedding", Function::Silu, time);
    let time = b.linear("time_embedding.linear_2", time, [time_width, width], true)?;
    let states = b.linear("encoder_hidden_states_proj", states, [embedding, width], true)?;
    let prompt = b.linear("embedding_proj", prompt, [text, width], true)?;
    let noisy = b.linear("proj_in", noisy, [embedding, width], true)?;
    let last = Some(b.weight("prd_embedding".into(), &[width])?);
    let all = b.emit("prd_embedding", Op::ConcatTokens { last }, &[states, prompt, time, noisy]);
    let positions = b.weight("positional_embedding".into(), &[tokens + ADDITIONAL, width])?;
    let mut h = b.emit("positional_embedding", Op::AddPositions { weight: positions }, &[all]);
    for layer in 0..layers {
        h = block(&mut b, &format!("transformer_blocks.{layer}"), [h, mask], width, heads)?;
    }
    let h = b.layer_norm("norm_out", h, width, EPSILON)?;
    let last = b.pick_token("norm_out", h, TokenRule::Last, None);
    let prediction = b.linear("proj_to_clip_embeddings", last, [width, image], true)?;
    b.output("predicted_image_embedding", prediction);
    Ok(b.finish())
}

fn block(b: &mut Builder, module: &str, [x, mask]: [Value; 2], width: usize, heads: usize) -> Made {
    let at = |layer: &str| format!("{module}.{layer}");
    let h = b.layer_norm(&at("norm1"), x, width, EPSILON)?;
    let q = b.linear(&at("attn1.to_q"), h, [width; 2], true)?;
    let k = b.linear(&at("attn1.to_k"), h, [width; 2], true)?;
    let v = b.linear(&at("attn1.to_v"), h, [width; 2], true)?;
    let h = b.masked_attention(&at("attn1"), [q, k, v, mask], width, heads);
    let h = b.linear(&at("attn1.to_out.0"), h, [width; 2], true)?;
    let x = b.add(module, h, x);
    let h = b.layer_norm(&at("norm3"), x, width, EPSILON)?;
    let h = b.linear(&at("ff.net.0.proj"), h, [width, WIDENING * width], true)?;
    let h = b.activation(&at("ff.net.0"), Function::Gelu, h);
    let h = b.linear(&at("ff.net.2"), h, [WIDENING * width, width], true)?;
    Ok(b.add(module, h, x))
}
