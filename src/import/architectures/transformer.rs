//! Diffusers' `Transformer2DModel`: a map looks at itself and at the prompt.

use super::ArchitectureError;
use super::blocks::Map;
use super::builder::{Builder, Groups, Made};
use crate::engine::graph::{Op, Value};

/// What is added to a variance, whatever the configuration says.
const EPSILON: f32 = 1e-6;
/// The same of layer normalisation.
const LAYER_EPSILON: f32 = 1e-5;
/// How much wider the feed-forward layers are.
const WIDENING: usize = 4;

/// What the transformers of one level have in common.
#[derive(Debug, Clone, Copy)]
pub struct Transformer {
    /// Heads of each attention.
    pub heads: usize,
    /// Blocks.
    pub depth: usize,
    /// Groups of the normalisation before.
    pub groups: usize,
    /// The prompt.
    pub text: Map,
}

/// A transformer over the pixels of a map.
pub fn transformer(b: &mut Builder, module: &str, x: Map, with: Transformer) -> Made {
    let at = |layer: &str| format!("{module}.{layer}");
    let channels = x.channels;
    let groups = Groups { count: with.groups, epsilon: EPSILON };
    let mut h = b.group_norm(&at("norm"), x.value, channels, groups, false)?;
    h = b.linear(&at("proj_in"), h, [channels; 2], true)?;
    for block in 0..with.depth {
        h = transformer_block(
            b,
            &at(&format!("transformer_blocks.{block}")),
            Map { value: h, channels },
            with,
        )?;
    }
    h = b.linear(&at("proj_out"), h, [channels; 2], true)?;
    Ok(b.add(module, h, x.value))
}

fn transformer_block(b: &mut Builder, module: &str, x: Map, with: Transformer) -> Made {
    let at = |layer: &str| format!("{module}.{layer}");
    let channels = x.channels;
    let normed = b.layer_norm(&at("norm1"), x.value, channels, LAYER_EPSILON)?;
    let this = Map { value: normed, channels };
    let attended = attention(b, &at("attn1"), [this; 2], with.heads)?;
    let h = b.add(module, attended, x.value);
    let normed = b.layer_norm(&at("norm2"), h, channels, LAYER_EPSILON)?;
    let attended = attention(b, &at("attn2"), [Map { value: normed, channels }, with.text], with.heads)?;
    let h = b.add(module, attended, h);
    let normed = b.layer_norm(&at("norm3"), h, channels, LAYER_EPSILON)?;
    let fed = feed_forward(b, &at("ff"), normed, channels)?;
    Ok(b.add(module, fed, h))
}

/// `x` looks at `other`.
fn attention(
    b: &mut Builder,
    module: &str,
    [x, other]: [Map; 2],
    heads: usize,
) -> Result<Value, ArchitectureError> {
    let channels = x.channels;
    let q = b.linear(&format!("{module}.to_q"), x.value, [channels; 2], false)?;
    let k = b.linear(&format!("{module}.to_k"), other.value, [other.channels, channels], false)?;
    let v = b.linear(&format!("{module}.to_v"), other.value, [other.channels, channels], false)?;
    let mixed = b.attention(module, [q, k, v], channels, heads, false);
    b.linear(&format!("{module}.to_out.0"), mixed, [channels; 2], true)
}

fn feed_forward(b: &mut Builder, module: &str, x: Value, channels: usize) -> Made {
    let inner = WIDENING * channels;
    let both = b.linear(&format!("{module}.net.0.proj"), x, [channels, 2 * inner], true)?;
    let gated = b.emit(&format!("{module}.net.0"), Op::Geglu, &[both]);
    b.linear(&format!("{module}.net.2"), gated, [inner, channels], true)
}
