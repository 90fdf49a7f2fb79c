//! The operators that compute nothing, or little: they arrange, cut and join.

use tract_onnx::pb::NodeProto;

use super::product::live;
use super::{Lowering, Rule};
use crate::engine::graph::Op;
use crate::engine::onnx::meaning::{Meaning, Normalised, Operand, Sinusoids, Waves};
use crate::engine::onnx::source::{attribute, integer, sizes};
use crate::engine::onnx::view::View;

impl Lowering<'_> {
    pub(super) fn transpose(&mut self, node: &NodeProto) -> Rule {
        let rank = self.input_shape(node, 0)?.len();
        let order = sizes(node, "perm").unwrap_or((0..rank).rev().collect());
        self.rearrange(node, |view| Some(view.transpose(&order)))
    }

    /// Every operator that keeps the elements' order; the analysis knows the new shape.
    pub(super) fn reshape(&mut self, node: &NodeProto) -> Rule {
        let shape = self.output_shape(node)?;
        self.rearrange(node, |view| view.reshape(&shape))
    }

    fn rearrange(&mut self, node: &NodeProto, turn: impl Fn(&View) -> Option<View>) -> Rule {
        let apart = || "it would take the elements of an axis apart".to_owned();
        Ok(match self.meaning(node, 0)? {
            Meaning::Live(operand) if operand.part.is_none() => {
                Meaning::Live(Operand { view: turn(&operand.view).ok_or_else(apart)?, ..operand })
            }
            Meaning::Constant(constant) => {
                let shape = self.output_shape(node)?;
                let turned = if node.op_type == "Transpose" {
                    constant.transpose(&sizes(node, "perm").ok_or("it has no permutation")?)
                } else {
                    constant.reshape(&shape).ok_or_else(apart)?
                };
                Meaning::Constant(turned)
            }
            Meaning::Normalised(norm) => {
                Meaning::Normalised(Normalised { view: turn(&norm.view).ok_or_else(apart)?, ..norm })
            }
            as_it_is @ (Meaning::Place(..) | Meaning::IsId(..) | Meaning::Mask(_)) => as_it_is,
            other => live(turn(&self.settle(other)?).ok_or_else(apart)?),
        })
    }

    /// Only a batch is ever repeated, and every operation repeats for a batch by itself.
    pub(super) fn expand(&mut self, node: &NodeProto) -> Rule {
        if let mask @ Meaning::Mask(_) = self.meaning(node, 0)? {
            return Ok(mask);
        }
        let (before, after) = (self.input_shape(node, 0)?, self.output_shape(node)?);
        let volume = |shape: &[usize]| shape.iter().product::<usize>();
        if volume(&before) != volume(&after) {
            return Err("it repeats elements".into());
        }
        self.reshape(node)
    }

    fn input_shape(&self, node: &NodeProto, at: usize) -> Result<Vec<usize>, String> {
        let fact = self.source.fact(&node.input[at]).ok_or("its input's shape is not known")?;
        Ok(fact.shape.clone())
    }

    pub(super) fn slice(&mut self, node: &NodeProto) -> Rule {
        let list = |at| self.integers(node, at).filter(|v| v.len() == 1).map(|v| v[0]);
        let (Some(start), Some(end)) = (list(1), list(2)) else {
            return Err("it cuts at places that are computed".into());
        };
        if node.input.len() > 4 && list(4) != Some(1) {
            return Err("it leaves out elements".into());
        }
        let shape = self.input_shape(node, 0)?;
        let axis = resolve(list(3).unwrap_or(0), shape.len()).ok_or("its axis does not exist")?;
        let limit = |i: i64| {
            let size = shape[axis] as i64;
            (if i < 0 { i + size } else { i }).clamp(0, size) as usize
        };
        let (start, end) = (limit(start), limit(end));
        self.part(node, axis, start, end.saturating_sub(start))
    }

    /// `Split` into equal or given parts: one output each.
    pub(super) fn split(&mut self, node: &NodeProto) -> Result<(), String> {
        let shape = self.input_shape(node, 0)?;
        let axis = resolve(integer(node, "axis", 0), shape.len()).ok_or("its axis does not exist")?;
        let mut start = 0;
        for output in &node.output {
            let fact = self.source.fact(output).ok_or("its output's shape is not known")?;
            let len = fact.shape[axis];
            let meaning = self.part(node, axis, start, len)?;
            self.meanings.insert(output.clone(), meaning);
            start += len;
        }
        Ok(())
    }

    fn part(&mut self, node: &NodeProto, axis: usize, start: usize, len: usize) -> Rule {
        let whole = self.input_shape(node, 0)?[axis];
        let meaning = self.meaning(node, 0)?;
        if (start, len) == (0, whole) {
            return Ok(meaning);
        }
        if let Meaning::Sinusoids(sinusoids) = meaning {
            return half_of(sinusoids, start, len, whole);
        }
        let Meaning::Live(operand) = meaning else { return Err("it cuts something unfinished".into()) };
        let channel_dim = operand.view.channel_dim(self.shape(operand.view.value));
        if operand.part.is_some() || channel_dim != Some(axis) {
            return Err("it cuts something other than channels".into());
        }
        Ok(Meaning::Live(Operand { part: Some((start, len)), ..operand }))
    }

    pub(super) fn concat(&mut self, node: &NodeProto) -> Rule {
        let meanings =
            (0..node.input.len()).map(|at| self.meaning(node, at)).collect::<Result<Vec<_>, _>>()?;
        match meanings.as_slice() {
            [one] => return Ok(one.clone()),
            [Meaning::Sinusoids(a), Meaning::Sinusoids(b)] => return both_waves(a, b),
            [Meaning::Constant(token), Meaning::Live(_)] => {
                let token = token.clone();
                return self.prepend_token(node, token);
            }
            [Meaning::Constant(_), place @ Meaning::Place(..)] => return Ok(place.clone()),
            _ => {}
        }
        let shape = self.output_shape(node)?;
        let axis = resolve(integer(node, "axis", 0), shape.len());
        if shape.len() == 3 && axis == Some(1) {
            return self.concat_tokens(node, &meanings);
        }
        let views = (0..node.input.len()).map(|at| self.view(node, at)).collect::<Result<Vec<_>, _>>()?;
        let mut channels = 0;
        for view in &views {
            let shape = self.shape(view.value);
            if view.channel_dim(shape) != axis
                || view.is_channels_last(shape) != views[0].is_channels_last(self.shape(views[0].value))
            {
                return Err("it joins something other than channels".into());
            }
            channels += shape[shape.len() - 1];
        }
        let before = self.shape(views[0].value).to_vec();
        let mut after = before.clone();
        *after.last_mut().expect("a value has at least one axis") = channels;
        let values: Vec<_> = views.iter().map(|v| v.value).collect();
        let value = self.emit(Op::Concat, &values, after);
        views[0].with_channels(value, &before, channels).map(live).ok_or("it joins no channels".into())
    }

    pub(super) fn pad(&mut self, node: &NodeProto) -> Rule {
        let constant = attribute(node, "mode").is_none_or(|a| a.s == b"constant");
        let zero = node.input.get(2).is_none_or(|n| n.is_empty()) || self.scalar(node, 2) == Some(0.0);
        let pads = self.integers(node, 1).ok_or("its widths are computed")?;
        if let mask @ Meaning::Mask(_) = self.meaning(node, 0)? {
            // Keys behind those of the mask are seen.
            let is_behind = pads.split_last().is_some_and(|(_, others)| others.iter().all(|&pad| pad == 0));
            return if constant && zero && is_behind {
                Ok(mask)
            } else {
                Err("it pads a mask otherwise".into())
            };
        }
        let widths: Option<Vec<usize>> = pads.iter().map(|&p| usize::try_from(p).ok()).collect();
        let Some([0, 0, top, left, 0, 0, bottom, right]) = widths.as_deref() else {
            return Err("it pads something other than height and width".into());
        };
        if !constant || !zero {
            return Err("only padding with zeros is supported".into());
        }
        let operand = self.operand(node, 0)?;
        Ok(Meaning::Padded(operand, [*top, *left, *bottom, *right]))
    }

    pub(super) fn upsample(&mut self, node: &NodeProto) -> Rule {
        let map = self.map(node, 0)?;
        let nearest = attribute(node, "mode").is_none_or(|a| a.s == b"nearest");
        let (before, after) = (map.shape(), self.output_shape(node)?);
        if !nearest || after[2..] != [2 * before[2], 2 * before[3]] {
            return Err("only doubling by nearest neighbour is supported".into());
        }
        let shape = [after[0], after[2], after[3], after[1]];
        let value = self.emit(Op::Upsample, &[map.value], shape.to_vec());
        Ok(live(View::channels_first(value, &shape)))
    }

    pub(super) fn average_pool(&mut self, node: &NodeProto) -> Rule {
        let map = self.map(node, 0)?;
        let is = |name: &str, wanted: &[usize], default: bool| {
            sizes(node, name).map_or(default, |sizes| sizes == wanted)
        };
        let halves = is("kernel_shape", &[2, 2], false) && is("strides", &[2, 2], false);
        if !halves || !is("pads", &[0; 4], true) || integer(node, "ceil_mode", 0) != 0 {
            return Err("only means of 2 x 2 pixels that do not overlap are supported".into());
        }
        let after = self.output_shape(node)?;
        let shape = [after[0], after[2], after[3], after[1]];
        let value = self.emit(Op::Downsample, &[map.value], shape.to_vec());
        Ok(live(View::channels_first(value, &shape)))
    }
}

fn resolve(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&a| a < rank)
}

fn half_of(sinusoids: Sinusoids, start: usize, len: usize, whole: usize) -> Rule {
    let second = start == len;
    if 2 * len != whole || !(second || start == 0) {
        return Err("it cuts a timestep embedding other than in halves".into());
    }
    let waves = match (sinusoids.waves, second) {
        (Waves::SineCosine, false) | (Waves::CosineSine, true) => Waves::Sine,
        (Waves::SineCosine, true) | (Waves::CosineSine, false) => Waves::Cosine,
        _ => return Err("it cuts a single wave".into()),
    };
    Ok(Meaning::Sinusoids(Sinusoids { waves, ..sinusoids }))
}

fn both_waves(a: &Sinusoids, b: &Sinusoids) -> Rule {
    let waves = match (a.waves, b.waves) {
        (Waves::Sine, Waves::Cosine) => Waves::SineCosine,
        (Waves::Cosine, Waves::Sine) => Waves::CosineSine,
        _ => return Err("it joins two waves of one kind".into()),
    };
    Ok(Meaning::Sinusoids(Sinusoids { waves, ..a.clone() }))
}
