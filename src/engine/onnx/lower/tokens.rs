//! Token ids: looking rows up, and finding the token that stands for a sentence.

use tract_onnx::pb::NodeProto;

use super::product::live;
use super::{Lowering, Rule};
use crate::engine::graph::{Op, TokenRule, Value};
use crate::engine::onnx::constant::Constant;
use crate::engine::onnx::meaning::Meaning;
use crate::engine::onnx::source::integer;
use crate::engine::onnx::view::View;

impl Lowering<'_> {
    pub(super) fn gather(&mut self, node: &NodeProto) -> Rule {
        let axis = integer(node, "axis", 0);
        match (self.meaning(node, 0)?, self.meaning(node, 1)?) {
            (Meaning::Constant(table), Meaning::Live(_)) if axis == 0 => self.embedding(node, table),
            (Meaning::Constant(table), Meaning::Constant(_)) if axis == 0 => {
                let rows = self.integers(node, 1).ok_or("its rows are computed")?;
                first_rows(table, &rows, &self.output_shape(node)?)
            }
            (Meaning::Live(_), Meaning::Place(ids, rule)) if axis == 0 => self.pick(node, rule, Some(ids)),
            (Meaning::Live(_), Meaning::Constant(_)) if axis == 1 => {
                match self.integers(node, 1).as_deref() {
                    Some([0]) => self.pick(node, TokenRule::First, None),
                    Some([-1]) => self.pick(node, TokenRule::Last, None),
                    _ => Err("it gathers a token in the middle".into()),
                }
            }
            _ => Err("it gathers something other than tokens".into()),
        }
    }

    pub(super) fn gather_nd(&mut self, node: &NodeProto) -> Rule {
        match self.meaning(node, 1)? {
            Meaning::Place(ids, rule) => self.pick(node, rule, Some(ids)),
            _ => Err("it gathers something other than tokens".into()),
        }
    }

    fn embedding(&mut self, node: &NodeProto, table: Constant) -> Rule {
        let ids = self.view(node, 1)?;
        let shape = self.shape(ids.value).to_vec();
        let &[_, channels] = table.shape().as_slice() else { return Err("its table is not a matrix".into()) };
        if ids != View::whole(ids.value, &shape) || !(1..=2).contains(&shape.len()) {
            return Err("its ids are neither one row per sentence nor one per picture".into());
        }
        let table = self.weight("weight", table);
        let shape = [&shape[..], &[channels]].concat();
        let value = self.emit(Op::Embedding { table }, &[ids.value], shape.clone());
        Ok(live(View::whole(value, &shape)))
    }

    /// One token of every sequence; the output is `[n, c]`, whatever dimensions of size 1 ONNX keeps.
    fn pick(&mut self, node: &NodeProto, rule: TokenRule, ids: Option<Value>) -> Rule {
        let view = self.view(node, 0)?;
        let shape = self.shape(view.value).to_vec();
        if shape.len() != 3 || !view.is_channels_last(&shape) {
            return Err("it picks from something other than a sequence".into());
        }
        let inputs: Vec<Value> = std::iter::once(view.value).chain(ids).collect();
        let value = self.emit(Op::PickToken { rule }, &inputs, vec![shape[0], shape[2]]);
        let picked = View::whole(value, &[shape[0], shape[2]]);
        picked.reshape(&self.output_shape(node)?).map(live).ok_or("it picks more than one token".into())
    }

    pub(super) fn equal(&mut self, node: &NodeProto) -> Rule {
        let id = self.integers(node, 1).filter(|v| v.len() == 1).ok_or("it compares computed values")?[0];
        let ids = self.view(node, 0)?;
        self.check_ids(&ids)?;
        Ok(Meaning::IsId(ids.value, id))
    }

    pub(super) fn arg_max(&mut self, node: &NodeProto) -> Rule {
        match self.meaning(node, 0)? {
            Meaning::IsId(ids, id) => Ok(Meaning::Place(ids, TokenRule::Id(id))),
            other => {
                let ids = self.settle(other)?;
                self.check_ids(&ids)?;
                Ok(Meaning::Place(ids.value, TokenRule::LargestId))
            }
        }
    }

    fn check_ids(&self, ids: &View) -> Result<(), String> {
        let input = (ids.value as usize) < self.graph.inputs.len();
        if input && self.shape(ids.value).len() == 2 {
            return Ok(());
        }
        Err("it is not of the token ids".into())
    }

    /// Sequences and single tokens one behind the other, the last of which may be learned.
    pub(super) fn concat_tokens(&mut self, node: &NodeProto, meanings: &[Meaning]) -> Rule {
        let channels = *self.output_shape(node)?.last().ok_or("it has no channels")?;
        let (last, count) = match meanings.last() {
            Some(Meaning::Constant(token)) if token.squeezed().shape() == [channels] => {
                (Some(self.weight("weight", token.squeezed())), meanings.len() - 1)
            }
            _ => (None, meanings.len()),
        };
        let (mut values, mut tokens) = (Vec::with_capacity(count), usize::from(last.is_some()));
        for at in 0..count {
            let view = self.rows(node, at)?;
            tokens += view.shape()[1];
            values.push(view.value);
        }
        let batch = self.shape(*values.first().ok_or("it joins constants")?)[0];
        let shape = [batch, tokens, channels];
        let value = self.emit(Op::ConcatTokens { last }, &values, shape.to_vec());
        Ok(live(View::whole(value, &shape)))
    }

    /// A learned token before the pixels of a map.
    pub(super) fn prepend_token(&mut self, node: &NodeProto, token: Constant) -> Rule {
        let rows = self.rows(node, 1)?;
        let shape = self.shape(rows.value).to_vec();
        let (batch, channels) = (shape[0], shape[shape.len() - 1]);
        let token = token.squeezed();
        if token.shape() != [channels] || rows.dims.len() != 3 || integer(node, "axis", 0) != 1 {
            return Err("it joins something other than one token and a map's pixels".into());
        }
        let tokens = 1 + shape[1..shape.len() - 1].iter().product::<usize>();
        let weight = self.weight("weight", token);
        let shape = [batch, tokens, channels];
        let value = self.emit(Op::PrependToken { weight }, &[rows.value], shape.to_vec());
        Ok(live(View::whole(value, &shape)))
    }
}

/// Rows of a table by constant numbers: only all of them, in order, is ever asked for.
fn first_rows(table: Constant, rows: &[i64], shape: &[usize]) -> Rule {
    let in_order = rows.iter().zip(0..).all(|(&row, at)| row == at);
    if !in_order || table.shape().first() != Some(&rows.len()) {
        return Err("it takes some rows of a table".into());
    }
    table.reshape(shape).map(Meaning::Constant).ok_or("its output has another shape".into())
}
