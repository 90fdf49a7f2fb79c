//! Convolutions, matrix products and normalisations: the operations that have weights.

use tract_onnx::pb::NodeProto;

use super::{Lowering, Rule};
use crate::engine::graph::Op;
use crate::engine::onnx::constant::Constant;
use crate::engine::onnx::meaning::{Meaning, Normalised, Operand, Over};
use crate::engine::onnx::source::{attribute, integer, sizes};
use crate::engine::onnx::view::View;

impl Lowering<'_> {
    pub(super) fn convolution(&mut self, node: &NodeProto) -> Rule {
        let weight = self.constant(node, 1).ok_or("its weight is computed")?;
        let &[outputs, channels, height, width] = weight.shape().as_slice() else {
            return Err("only convolutions of maps are supported".into());
        };
        let plain = integer(node, "group", 1) == 1
            && sizes(node, "dilations").is_none_or(|d| d == [1, 1])
            && attribute(node, "auto_pad").is_none_or(|a| a.s == b"NOTSET" || a.s.is_empty());
        if !plain {
            return Err("groups, dilations and automatic padding are not supported".into());
        }
        let (map, mut pads) = self.padded_map(node)?;
        for (pad, more) in pads.iter_mut().zip(sizes(node, "pads").unwrap_or(vec![0; 4])) {
            *pad += more;
        }
        let stride = sizes(node, "strides").unwrap_or(vec![1, 1]);
        let &[down, across] = stride.as_slice() else { return Err("it has other than two strides".into()) };
        let bias = self.constant(node, 2);
        if node.input.len() > 2 && bias.is_none() {
            return Err("its bias is computed".into());
        }
        let bias = bias.map(|b| self.weight("bias", b));
        if [height, width, down, across] == [1; 4] && pads == [0; 4] {
            let matrix = weight.reshape(&[outputs, channels]).expect("two sizes of one go");
            let weight = self.weight("weight", matrix);
            return Ok(live(self.emit_rows(Op::Linear { weight, bias }, &map, outputs)));
        }
        let (map, upsample) = match self.maker(map.value) {
            Some(maker) if maker.op == Op::Upsample => (maker.inputs[0], true),
            _ => (map.value, false),
        };
        let weight = self.weight("weight", weight.transpose(&[0, 2, 3, 1]));
        let shape = self.output_shape(node)?;
        let [n, h, w] = [shape[0], shape[2], shape[3]];
        let op = Op::Conv2d { weight, bias, stride: [down, across], pads, upsample };
        let value = self.emit(op, &[map], vec![n, h, w, outputs]);
        Ok(live(View::channels_first(value, &[n, h, w, outputs])))
    }

    fn padded_map(&mut self, node: &NodeProto) -> Result<(View, [usize; 4]), String> {
        let Meaning::Padded(operand, pads) = self.meaning(node, 0)? else {
            return Ok((self.map(node, 0)?, [0; 4]));
        };
        let view = self.settle_operand(operand);
        if view.is_channels_first(self.shape(view.value)) {
            return Ok((view, pads));
        }
        Err("its input is not a map".into())
    }

    /// The shape of a node's output, from the analysis.
    pub(super) fn output_shape(&self, node: &NodeProto) -> Result<Vec<usize>, String> {
        let fact = self.source.fact(&node.output[0]).ok_or("its output's shape is not known")?;
        Ok(fact.shape.clone())
    }

    pub(super) fn matmul(&mut self, node: &NodeProto) -> Rule {
        if let Some(weight) = self.constant(node, 1) {
            let rank = weight.shape().len();
            if rank != 2 {
                return Err(format!("its weight has rank {rank}"));
            }
            return self.linear(node, weight.transpose(&[1, 0]), None);
        }
        self.attention_product(node)
    }

    pub(super) fn gemm(&mut self, node: &NodeProto) -> Rule {
        let factor = |name| attribute(node, name).is_none_or(|a| a.f == 1.0);
        if !factor("alpha") || !factor("beta") || integer(node, "transA", 0) != 0 {
            return Err("factors and a transposed first input are not supported".into());
        }
        let weight = self.constant(node, 1).ok_or("its weight is computed")?;
        let weight = if integer(node, "transB", 0) == 0 { weight.transpose(&[1, 0]) } else { weight };
        let bias = self.constant(node, 2);
        if node.input.len() > 2 && bias.is_none() {
            return Err("its bias is computed".into());
        }
        self.linear(node, weight, bias)
    }

    /// `weight`: `[o, k]`.
    fn linear(&mut self, node: &NodeProto, weight: Constant, bias: Option<Constant>) -> Rule {
        let rows = self.rows(node, 0)?;
        let outputs = weight.shape()[0];
        let weight = self.weight("weight", weight);
        let bias = bias.map(|b| self.weight("bias", b));
        Ok(live(self.emit_rows(Op::Linear { weight, bias }, &rows, outputs)))
    }

    /// A bias that is added to a product which has none yet; `None` if that is not what happens here.
    pub(super) fn add_bias(&mut self, view: &View, constant: &Constant) -> Option<View> {
        let shape = self.shape(view.value).to_vec();
        let channels = *shape.last()?;
        let at = view.channel_dim(&shape)?;
        if !is_vector(constant, view.dims.len() - 1 - at, channels) {
            return None;
        }
        let maker = self.maker(view.value)?.clone();
        let op = match maker.op {
            Op::Linear { weight, bias: None } => {
                let bias = Some(self.weight("bias", constant.squeezed()));
                Op::Linear { weight, bias }
            }
            Op::Conv2d { weight, bias: None, stride, pads, upsample } => {
                let bias = Some(self.weight("bias", constant.squeezed()));
                Op::Conv2d { weight, bias, stride, pads, upsample }
            }
            _ => return None,
        };
        Some(view.with_value(self.emit(op, &maker.inputs, shape)))
    }

    pub(super) fn instance_norm(&mut self, node: &NodeProto) -> Rule {
        let view = self.view(node, 0)?;
        let all = |at, number: f32| {
            self.literal(node, at).is_some_and(|v: Vec<f32>| v.iter().all(|&x| x == number))
        };
        if !all(1, 1.0) || !all(2, 0.0) {
            return Err("it has factors of its own".into());
        }
        let shape = self.shape(view.value);
        let groups = view.shape().get(1).copied().unwrap_or(0);
        let channels = *shape.last().expect("a value has at least one axis");
        let grouped = View::channels_last_to_groups(view.value, shape, groups);
        if groups == 0 || !channels.is_multiple_of(groups) || grouped.as_ref() != Some(&view) {
            return Err("its input is not a map in groups of channels".into());
        }
        let epsilon = attribute(node, "epsilon").map_or(1e-5, |a| a.f);
        Ok(Meaning::Normalised(Normalised { view, over: Over::Groups(groups), epsilon, weight: None }))
    }

    /// The factors of a normalisation.
    pub(super) fn normalised_weight(&self, norm: Normalised, constant: &Constant) -> Rule {
        if norm.weight.is_some() || !self.is_per_channel(&norm.view, constant) {
            return Err("something normalised is multiplied by something that is not its factors".into());
        }
        Ok(Meaning::Normalised(Normalised { weight: Some(constant.squeezed()), ..norm }))
    }

    /// The summands of a normalisation, which complete it.
    pub(super) fn normalised_bias(&mut self, norm: Normalised, constant: &Constant) -> Rule {
        let per_channel = self.is_per_channel(&norm.view, constant);
        let (Some(weight), true) = (norm.weight, per_channel) else {
            return Err("something is added to something normalised that is not its summands".into());
        };
        let weight = self.weight("weight", weight);
        let bias = self.weight("bias", constant.squeezed());
        let epsilon = norm.epsilon;
        let op = match norm.over {
            Over::Groups(groups) => Op::GroupNorm { weight, bias, groups, epsilon, silu: false },
            Over::Channels => Op::LayerNorm { weight, bias, epsilon },
        };
        Ok(live(self.map_elements(op, &norm.view)))
    }

    fn is_per_channel(&self, view: &View, constant: &Constant) -> bool {
        let shape = self.shape(view.value);
        let channels = *shape.last().expect("a value has at least one axis");
        view.channel_dim(shape).is_some_and(|at| is_vector(constant, view.dims.len() - 1 - at, channels))
    }

    pub(super) fn layer_norm(&mut self, node: &NodeProto) -> Rule {
        let rows = self.rows(node, 0)?;
        if ![-1, rows.dims.len() as i64 - 1].contains(&integer(node, "axis", -1)) {
            return Err("it normalises over more than the channels".into());
        }
        let weight = self.constant(node, 1).ok_or("its factors are computed")?;
        let bias = self.constant(node, 2).ok_or("it has no summands")?;
        let weight = self.weight("weight", weight);
        let bias = self.weight("bias", bias);
        let epsilon = attribute(node, "epsilon").map_or(1e-5, |a| a.f);
        Ok(live(self.map_elements(Op::LayerNorm { weight, bias, epsilon }, &rows)))
    }
}

/// Whether a constant is one number per channel, with `behind` dimensions of size 1 after it.
fn is_vector(constant: &Constant, behind: usize, channels: usize) -> bool {
    let shape = constant.shape();
    let Some(at) = shape.len().checked_sub(1 + behind) else { return false };
    shape[at] == channels && shape.iter().product::<usize>() == channels
}

pub(super) fn live(view: View) -> Meaning {
    Meaning::Live(Operand::whole(view))
}
