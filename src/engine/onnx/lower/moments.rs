//! Layer normalisation as exporters before opset 17 write it: in nine nodes, from the mean to the summands.

use tract_onnx::pb::NodeProto;

use super::{Lowering, Rule};
use crate::engine::onnx::meaning::{Meaning, Moment, Normalised, Over};
use crate::engine::onnx::source::attribute;
use crate::engine::onnx::view::View;

impl Lowering<'_> {
    pub(super) fn reduce_mean(&mut self, node: &NodeProto) -> Rule {
        let axes = attribute(node, "axes").map(|a| a.ints.clone()).or_else(|| self.integers(node, 1));
        let last = self.output_shape(node)?.len() as i64 - 1;
        if !axes.is_some_and(|axes| axes == [-1] || axes == [last]) {
            return Err("it takes the mean of something other than the last axis".into());
        }
        match self.meaning(node, 0)? {
            Meaning::Moment(rows, Moment::Squared) => Ok(Meaning::Moment(rows, Moment::Variance)),
            _ => Ok(Meaning::Moment(self.rows(node, 0)?, Moment::Mean)),
        }
    }

    /// What is left of rows without their mean.
    pub(super) fn centred(&mut self, node: &NodeProto, mean: View) -> Rule {
        if self.rows(node, 0)? == mean {
            return Ok(Meaning::Moment(mean, Moment::Centred));
        }
        Err("it subtracts the mean of something else".into())
    }

    pub(super) fn power(&mut self, node: &NodeProto) -> Rule {
        match (self.meaning(node, 0)?, self.scalar(node, 1)) {
            (Meaning::Moment(rows, Moment::Centred), Some(2.0)) => Ok(Meaning::Moment(rows, Moment::Squared)),
            _ => Err("it is not the square of a layer normalisation".into()),
        }
    }

    pub(super) fn root(&mut self, node: &NodeProto) -> Rule {
        match self.meaning(node, 0)? {
            Meaning::Moment(rows, Moment::Padded(epsilon)) => {
                Ok(Meaning::Moment(rows, Moment::Deviation(epsilon)))
            }
            _ => Err("it is not the root of a layer normalisation".into()),
        }
    }

    /// Rows without their mean, divided by their deviation.
    pub(super) fn standardised(&mut self, node: &NodeProto, rows: View, epsilon: f32) -> Rule {
        match self.meaning(node, 0)? {
            Meaning::Moment(centred, Moment::Centred) if centred == rows => {
                Ok(Meaning::Normalised(Normalised {
                    view: rows,
                    over: Over::Channels,
                    epsilon,
                    weight: None,
                }))
            }
            _ => Err("it divides by the deviation of something else".into()),
        }
    }
}
