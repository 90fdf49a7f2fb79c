//! What cross-attention compares: queries of the map's cells, and keys of the text's tokens.
//!
//! Attention never holds its scores. Whoever wants to see them has queries and keys as further outputs, and makes the scores
//! of these; the outputs that were there before stay as they are.

use super::graph::{Graph, Op, Output, Value};

/// A cross-attention whose queries and keys are outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossAttention {
    /// The output with the queries, `[batch, height, width, channels]`.
    pub queries: String,
    /// The output with the keys, `[batch, tokens, channels]`.
    pub keys: String,
    /// The number of heads; each has its share of the channels, in order.
    pub heads: usize,
    /// The factor of the scores.
    pub scale: f32,
}

impl Graph {
    /// Makes outputs of the queries and keys of every attention whose keys are made of the input `text` and not of the input
    /// `map`, in the graph's order.
    pub fn show_cross_attention(&mut self, text: &str, map: &str) -> Vec<CrossAttention> {
        let [of_text, of_map] = [text, map].map(|input| self.made_of(input));
        let mut shown = Vec::new();
        for node in &self.nodes {
            let (&Op::Attention { heads, scale, .. }, [queries, keys, _]) = (&node.op, &node.inputs[..])
            else {
                continue;
            };
            if !of_text[*keys as usize] || of_map[*keys as usize] {
                continue;
            }
            let name = |part: &str| format!("cross_attention.{}.{part}", shown.len());
            let layer = CrossAttention { queries: name("queries"), keys: name("keys"), heads, scale };
            self.outputs.push(Output { name: layer.queries.clone(), value: *queries });
            self.outputs.push(Output { name: layer.keys.clone(), value: *keys });
            shown.push(layer);
        }
        shown
    }

    /// Of every value, whether it is the input of that name or made of it.
    fn made_of(&self, input: &str) -> Vec<bool> {
        let mut made: Vec<bool> = self.inputs.iter().map(|i| i.name == input).collect();
        for node in &self.nodes {
            let is_made = node.inputs.iter().any(|&value: &Value| made[value as usize]);
            made.push(is_made);
        }
        made
    }
}
