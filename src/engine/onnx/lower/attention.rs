//! Attention: `softmax(scale q k^T + mask) v`, of which only the whole becomes an operation.

use tract_onnx::pb::NodeProto;

use super::product::live;
use super::{Lowering, Rule};
use crate::engine::graph::Op;
use crate::engine::onnx::meaning::{Mask, Meaning, Scores};
use crate::engine::onnx::source::integer;
use crate::engine::onnx::view::{Digit, View, joined, outer};

/// What stands in a mask for "never": exporters write the lowest float or minus infinity.
pub(super) const NEVER: f32 = -1e4;

impl Lowering<'_> {
    /// A product of two computed values: of queries and keys, or of a softmax and values.
    pub(super) fn attention_product(&mut self, node: &NodeProto) -> Rule {
        match (self.meaning(node, 0)?, self.meaning(node, 1)?) {
            (Meaning::Live(q), Meaning::Live(k)) if q.part.is_none() && k.part.is_none() => {
                Ok(Meaning::Scores(Scores {
                    queries: q.view,
                    keys: k.view,
                    scale: q.factor * k.factor,
                    causal: false,
                    mask: None,
                    softmax: false,
                }))
            }
            (Meaning::Scores(scores), Meaning::Live(v)) if scores.softmax && v.factor == 1.0 => {
                self.attention(&scores, &v.view)
            }
            (a, b) => Err(format!("it is the product of {} and {}", a.noun(), b.noun())),
        }
    }

    pub(super) fn softmax(&mut self, node: &NodeProto) -> Rule {
        match self.meaning(node, 0)? {
            Meaning::Scores(scores) if !scores.softmax => {
                let last = scores.queries.dims.len() as i64 - 1;
                if ![-1, last].contains(&integer(node, "axis", -1)) {
                    return Err("it is not over the keys".into());
                }
                Ok(Meaning::Scores(Scores { softmax: true, ..scores }))
            }
            other => Err(format!("it is of {}, not of attention scores", other.noun())),
        }
    }

    /// A question that is asked of a softmax only, for a query that sees no key: there is none here, since each sees
    /// itself.
    pub(super) fn is_nan(&mut self, node: &NodeProto) -> Rule {
        match self.meaning(node, 0)? {
            softmax @ Meaning::Scores(Scores { softmax: true, .. }) => Ok(softmax),
            other => Err(format!("it is of {}, not of a softmax", other.noun())),
        }
    }

    /// Zeros where a softmax is not a number, which is nowhere.
    pub(super) fn choose(&mut self, node: &NodeProto) -> Rule {
        match (self.meaning(node, 0)?, self.scalar(node, 1), self.meaning(node, 2)?) {
            (Meaning::Scores(asked), Some(0.0), Meaning::Scores(scores))
                if asked.softmax && scores.softmax =>
            {
                Ok(Meaning::Scores(scores))
            }
            _ => Err("it chooses between computed values".into()),
        }
    }

    /// One less a graph input: 1 for the keys that are not seen.
    pub(super) fn unseen(&mut self, node: &NodeProto) -> Rule {
        let view = self.view(node, 1)?;
        let is_input = (view.value as usize) < self.graph.inputs.len() && self.shape(view.value).len() == 2;
        if self.scalar(node, 0) != Some(1.0) || !is_input {
            return Err("it subtracts a computed value".into());
        }
        Ok(Meaning::Mask(Mask { seen: view.value, scaled: false, causal: false }))
    }

    fn attention(&mut self, scores: &Scores, values: &View) -> Rule {
        let heads = self.heads(&scores.queries).ok_or("its queries are not split into heads")?;
        let keys = scores.keys.transpose(&[0, 1, 3, 2]);
        if self.heads(&keys) != Some(heads) || self.heads(values) != Some(heads) {
            return Err("its keys or values are not split like its queries".into());
        }
        let shape = self.shape(scores.queries.value).to_vec();
        let (scale, causal, masked) = (scores.scale, scores.causal, scores.mask.is_some());
        let op = Op::Attention { heads, scale, causal, masked };
        let inputs: Vec<_> =
            [scores.queries.value, keys.value, values.value].into_iter().chain(scores.mask).collect();
        Ok(live(scores.queries.with_value(self.emit(op, &inputs, shape))))
    }

    /// The number of heads of a view `[n, heads, t, d]` over rows of channels; `None` if it is not one.
    fn heads(&self, view: &View) -> Option<usize> {
        let [batch, heads, tokens, width] = view.dims.as_slice() else { return None };
        let shape = self.shape(view.value);
        let axis = shape.len() - 1;
        let count: usize = heads.iter().map(|d| d.size).product();
        let channels = joined([heads.clone(), width.clone()].concat());
        let rows = joined([batch.clone(), tokens.clone()].concat());
        let whole = [Digit { axis, stride: 1, size: shape[axis] }];
        (channels == whole && rows == outer(shape)).then_some(count)
    }
}

/// A mask over keys with a constant one: nothing but the past, or all.
pub(super) fn masked_twice(mask: Mask, constant: &[f32]) -> Rule {
    let side = constant.len().isqrt();
    match (constant.iter().all(|&m| m == 0.0), is_causal(constant, side, side)) {
        (true, _) => Ok(Meaning::Mask(mask)),
        (_, true) => Ok(Meaning::Mask(Mask { causal: true, ..mask })),
        _ => Err("it adds a mask that is neither empty nor causal".into()),
    }
}

/// Scores with a computed mask.
pub(super) fn masked_by(scores: Scores, mask: Mask) -> Rule {
    if scores.softmax || scores.mask.is_some() || !mask.scaled {
        return Err("it adds a mask to something other than scores".into());
    }
    Ok(Meaning::Scores(Scores { mask: Some(mask.seen), causal: scores.causal || mask.causal, ..scores }))
}

/// Whether a mask lets every token see itself and what is before it, and nothing else.
fn is_causal(mask: &[f32], rows: usize, columns: usize) -> bool {
    rows == columns
        && mask.len() == rows * columns
        && mask.iter().enumerate().all(
            |(at, &m)| {
                if at % columns <= at / columns { m == 0.0 } else { m <= NEVER }
            },
        )
}

/// Scores with a constant mask: all zeros, or nothing but the past.
pub(super) fn masked(scores: Scores, mask: &[f32]) -> Rule {
    if scores.softmax {
        return Err("it adds to a softmax".into());
    }
    if mask.iter().all(|&m| m == 0.0) {
        return Ok(Meaning::Scores(scores));
    }
    let (queries, keys) = (scores.queries.shape(), scores.keys.shape());
    let (rows, columns) = (queries[queries.len() - 2], keys[keys.len() - 1]);
    if !is_causal(mask, rows, columns) {
        return Err("its mask is neither empty nor causal".into());
    }
    Ok(Meaning::Scores(Scores { causal: true, ..scores }))
}
