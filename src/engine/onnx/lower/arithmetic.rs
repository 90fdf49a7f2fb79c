//! Sums, products and functions of single elements, most of which are parts of something larger.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use tract_onnx::pb::NodeProto;

use super::product::live;
use super::{Lowering, Rule};
use crate::engine::graph::{Op, Value};
use crate::engine::onnx::constant::Constant;
use crate::engine::onnx::meaning::{Mask, Meaning, Moment, Operand, Sinusoids, Waves};
use crate::engine::onnx::view::View;
use crate::kernels::activation::Function;

impl Lowering<'_> {
    pub(super) fn add(&mut self, node: &NodeProto) -> Rule {
        let (a, b) = (self.meaning(node, 0)?, self.meaning(node, 1)?);
        match (a, b) {
            (Meaning::Constant(constant), other) => self.add_constant(node, 0, other, &constant),
            (other, Meaning::Constant(constant)) => self.add_constant(node, 1, other, &constant),
            (Meaning::Scores(scores), Meaning::Mask(mask)) => super::attention::masked_by(scores, mask),
            (a, b) => {
                let (a, b) = (self.settle(a)?, self.settle(b)?);
                self.paired(Op::Add, &a, &b)
            }
        }
    }

    fn add_constant(&mut self, node: &NodeProto, at: usize, other: Meaning, constant: &Constant) -> Rule {
        let number = self.scalar(node, at);
        match other {
            Meaning::Erf(operand) if number == Some(1.0) => Ok(Meaning::ErfPlusOne(operand, 1.0)),
            Meaning::Scores(scores) => {
                let mask = self.literal(node, at).ok_or("its mask is computed")?;
                super::attention::masked(scores, &mask)
            }
            Meaning::Mask(mask) => {
                let other =
                    constant.read("mask", &self.source.initialisers).map_err(|error| error.to_string())?;
                super::attention::masked_twice(mask, &other)
            }
            Meaning::Normalised(norm) => self.normalised_bias(norm, constant),
            Meaning::Moment(rows, Moment::Variance) => {
                let epsilon = number.ok_or("it adds more than one number to a variance")?;
                Ok(Meaning::Moment(rows, Moment::Padded(epsilon)))
            }
            place @ Meaning::Place(..) => Ok(place),
            other if number == Some(0.0) => Ok(other),
            other => {
                let view = self.settle(other)?;
                if let Some(biased) = self.add_bias(&view, constant) {
                    return Ok(live(biased));
                }
                match number {
                    Some(summand) => Ok(live(self.map_elements(Op::Shift { summand }, &view))),
                    None => self.add_positions(&view, constant),
                }
            }
        }
    }

    fn add_positions(&mut self, view: &View, constant: &Constant) -> Rule {
        let shape = self.shape(view.value).to_vec();
        let per_sequence: usize = shape[1..].iter().product();
        let weight = constant.squeezed();
        let fits = view.is_channels_last(&shape) && weight.shape().iter().product::<usize>() == per_sequence;
        if !fits || shape.len() != 3 {
            return Err("it adds a constant that is neither a bias nor one row per token".into());
        }
        let weight = self.weight("weight", weight);
        Ok(live(self.map_elements(Op::AddPositions { weight }, view)))
    }

    /// Sum or product of two computed values, in whichever order they go together.
    fn paired(&mut self, op: Op, a: &View, b: &View) -> Rule {
        self.in_order(op.clone(), a, b).or_else(|_| self.in_order(op, b, a))
    }

    fn in_order(&mut self, op: Op, a: &View, b: &View) -> Rule {
        let (shape, other) = (self.shape(a.value).to_vec(), self.shape(b.value).to_vec());
        let alike = shape == other && a.dims == b.dims;
        let vector = b.is_vector_per_map(&other)
            && a.is_channels_first(&shape)
            && (shape[0], shape.last()) == (other[0], other.last());
        if alike || vector {
            return Ok(live(a.with_value(self.emit(op, &[a.value, b.value], shape))));
        }
        Err("its inputs are arranged differently".into())
    }

    pub(super) fn subtract(&mut self, node: &NodeProto) -> Rule {
        if let Meaning::Moment(rows, Moment::Mean) = self.meaning(node, 1)? {
            return self.centred(node, rows);
        }
        let Some(number) = self.scalar(node, 1) else { return self.unseen(node) };
        let view = self.view(node, 0)?;
        Ok(live(self.map_elements(Op::Shift { summand: -number }, &view)))
    }

    pub(super) fn multiply(&mut self, node: &NodeProto) -> Rule {
        let (a, b) = (self.meaning(node, 0)?, self.meaning(node, 1)?);
        match (a, b) {
            (Meaning::Constant(constant), other) => self.multiply_constant(node, 0, other, constant),
            (other, Meaning::Constant(constant)) => self.multiply_constant(node, 1, other, constant),
            (a, b) => self.multiply_values(a, b),
        }
    }

    fn multiply_constant(&mut self, node: &NodeProto, at: usize, other: Meaning, constant: Constant) -> Rule {
        if let Meaning::Normalised(norm) = other {
            return self.normalised_weight(norm, &constant);
        }
        // Exporters repeat a timestep for a batch by ones; frequencies make a table of it.
        let is_table = self.output_shape(node)?.len() > 1;
        if let Some(number) = self.scalar(node, at).filter(|_| !is_table || !self.is_timestep(&other)) {
            return scale(other, number);
        }
        let Meaning::Live(operand) = other else { return Err("it scales something unfinished".into()) };
        let timesteps = self.timestep(&operand).ok_or("it multiplies by a constant that varies")?;
        let waves = Waves::Angles;
        Ok(Meaning::Sinusoids(Sinusoids { timesteps, frequencies: constant.squeezed(), waves }))
    }

    fn is_timestep(&self, meaning: &Meaning) -> bool {
        matches!(meaning, Meaning::Live(operand) if self.timestep(operand).is_some())
    }

    /// The graph input that holds the timestep, or the sizes of each picture, if this is a column of its numbers.
    fn timestep(&self, operand: &Operand) -> Option<Value> {
        let value = operand.view.value;
        let input = (value as usize) < self.graph.inputs.len() && self.shape(value).len() <= 2;
        let column = operand.view.dims.last().is_none_or(Vec::is_empty)
            && operand.view.dims.concat() == View::whole(value, self.shape(value)).dims.concat();
        (input && column && operand.factor == 1.0).then_some(value)
    }

    fn multiply_values(&mut self, a: Meaning, b: Meaning) -> Rule {
        match (a, b) {
            (Meaning::Live(x), Meaning::Sigmoid(y)) | (Meaning::Sigmoid(y), Meaning::Live(x)) => {
                self.gated_by_itself(x, &y)
            }
            (Meaning::Live(x), Meaning::ErfPlusOne(y, factor))
            | (Meaning::ErfPlusOne(y, factor), Meaning::Live(x)) => {
                let near = (y.factor - FRAC_1_SQRT_2).abs() < 1e-6 || (y.factor - 1.0 / SQRT_2).abs() < 1e-6;
                if !near || !x.is_same_place(&y) {
                    return Err("it is not GELU".into());
                }
                Ok(Meaning::Gaussian(Operand { factor: x.factor * factor, ..x }))
            }
            (Meaning::Live(x), Meaning::Gaussian(y)) | (Meaning::Gaussian(y), Meaning::Live(x)) => {
                self.gated(&x, &y)
            }
            (Meaning::Moment(x, Moment::Centred), Meaning::Moment(y, Moment::Centred)) if x == y => {
                Ok(Meaning::Moment(x, Moment::Squared))
            }
            (Meaning::Live(a), Meaning::Live(b)) => {
                let (a, b) = (self.settle_operand(a), self.settle_operand(b));
                self.paired(Op::Multiply, &a, &b)
            }
            _ => Err("it is the product of two computed values".into()),
        }
    }

    /// x times its own sigmoid.
    fn gated_by_itself(&mut self, x: Operand, y: &Operand) -> Rule {
        let function = match y.factor {
            1.0 => Function::Silu,
            f if (f - 1.702).abs() < 1e-6 => Function::QuickGelu,
            _ => return Err("it is neither SiLU nor the quick GELU".into()),
        };
        if !x.is_same_place(y) || x.factor != 1.0 {
            return Err("it multiplies by the sigmoid of something else".into());
        }
        let view = self.settle_operand(x);
        if let (Some(maker), Function::Silu) = (self.maker(view.value).cloned(), function)
            && let Op::GroupNorm { weight, bias, groups, epsilon, silu: false } = maker.op
        {
            let shape = self.shape(view.value).to_vec();
            let op = Op::GroupNorm { weight, bias, groups, epsilon, silu: true };
            return Ok(live(view.with_value(self.emit(op, &maker.inputs, shape))));
        }
        Ok(live(self.map_elements(Op::Activation { function }, &view)))
    }

    /// The first half of the channels times the GELU of the second.
    fn gated(&mut self, x: &Operand, y: &Operand) -> Rule {
        let channels = *self.shape(x.view.value).last().expect("a value has at least one axis");
        let half = channels / 2;
        let geglu = x.view == y.view
            && (x.part, y.part) == (Some((0, half)), Some((half, half)))
            && (x.factor, y.factor) == (1.0, 0.5)
            && x.view.is_channels_last(self.shape(x.view.value));
        if geglu {
            return Ok(live(self.emit_rows(Op::Geglu, &x.view, half)));
        }
        Err("it is gated by something other than its own other half".into())
    }

    pub(super) fn divide(&mut self, node: &NodeProto) -> Rule {
        if let Meaning::Moment(rows, Moment::Deviation(epsilon)) = self.meaning(node, 1)? {
            return self.standardised(node, rows, epsilon);
        }
        let number = self.scalar(node, 1).filter(|&n| n != 0.0).ok_or("it divides by a computed value")?;
        let meaning = self.meaning(node, 0)?;
        scale(meaning, 1.0 / number)
    }

    pub(super) fn sigmoid(&mut self, node: &NodeProto) -> Rule {
        self.operand(node, 0).map(Meaning::Sigmoid)
    }

    pub(super) fn erf(&mut self, node: &NodeProto) -> Rule {
        self.operand(node, 0).map(Meaning::Erf)
    }

    pub(super) fn activation(&mut self, node: &NodeProto, function: Function) -> Rule {
        let view = self.view(node, 0)?;
        Ok(live(self.map_elements(Op::Activation { function }, &view)))
    }

    pub(super) fn wave(&mut self, node: &NodeProto, waves: Waves) -> Rule {
        match self.meaning(node, 0)? {
            Meaning::Sinusoids(s) if s.waves == Waves::Angles => {
                Ok(Meaning::Sinusoids(Sinusoids { waves, ..s }))
            }
            _ => Err("it is not part of a timestep embedding".into()),
        }
    }

    pub(super) fn settle_sinusoids(&mut self, sinusoids: Sinusoids) -> Result<View, String> {
        let cosine_first = match sinusoids.waves {
            Waves::CosineSine => true,
            Waves::SineCosine => false,
            _ => return Err("a timestep embedding needs both waves".into()),
        };
        let numbers = self.shape(sinusoids.timesteps).to_vec();
        let (batch, each) =
            numbers.split_first().map_or((1, 1), |(&n, rest)| (n, rest.iter().product::<usize>()));
        let channels = 2 * sinusoids.frequencies.shape().iter().product::<usize>();
        let frequencies = self.weight("frequencies", sinusoids.frequencies);
        let op = Op::TimestepEmbedding { frequencies, cosine_first };
        let shape = [batch, each * channels];
        let value = self.emit(op, &[sinusoids.timesteps], shape.to_vec());
        View::whole(value, &shape).reshape(&[batch * each, channels]).ok_or("its numbers are no rows".into())
    }
}

/// Everything that can wait for a factor takes it along.
fn scale(meaning: Meaning, factor: f32) -> Rule {
    Ok(match meaning {
        Meaning::Live(x) => Meaning::Live(Operand { factor: x.factor * factor, ..x }),
        Meaning::ErfPlusOne(x, other) => Meaning::ErfPlusOne(x, other * factor),
        Meaning::Gaussian(x) => Meaning::Gaussian(Operand { factor: x.factor * factor, ..x }),
        Meaning::Mask(mask) if !mask.scaled && factor <= super::attention::NEVER => {
            Meaning::Mask(Mask { scaled: true, ..mask })
        }
        Meaning::Scores(mut scores) if !scores.softmax && scores.mask.is_none() => {
            scores.scale *= factor;
            Meaning::Scores(scores)
        }
        other if factor == 1.0 => other,
        other => return Err(format!("it scales {}", other.noun())),
    })
}
