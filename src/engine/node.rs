//! One of our operations as a node of a tract model. No operation knows of tract, and tract of none.

use std::sync::Arc;

use tract_core::internal::*;

use super::fused::can_begin;
use super::ops::Operation;
use super::pulse::Pulse;
use super::threads::Threads;
use super::weights::Pages;

/// An operation in a tract model: f32 in, one f32 out. Before it runs the pulse beats, and some weights are asked for.
#[derive(Debug, Clone)]
pub struct OperationNode {
    pub operation: Arc<dyn Operation>,
    /// Whether the last input is what the output begins as, in place of zeros.
    pub onto: bool,
    pub pulse: Pulse,
    pub ahead: Vec<Pages>,
}

impl PartialEq for OperationNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.operation, &other.operation) && self.onto == other.onto
    }
}

impl Eq for OperationNode {}

impl Op for OperationNode {
    fn name(&self) -> StaticName {
        self.operation.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for OperationNode {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.pulse.beat()?;
        self.ahead.iter().for_each(Pages::expect);
        let onto = if self.onto { inputs.pop() } else { None };
        let shapes: TVec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let shape = self.operation.output_shape(&shapes).map_err(|reason| format_err!("{reason}"))?;
        let plain = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        let values = plain.iter().map(|input| input.as_slice::<f32>()).collect::<TractResult<TVec<_>>>()?;
        let (begun, threads) = (std::time::Instant::now(), Threads::current());
        let mut output = match onto {
            Some(onto) => begun_as(onto, &shape, &threads)?,
            None => Tensor::zero::<f32>(&shape)?,
        };
        let mut target = output.try_as_plain_ram_mut()?;
        self.operation.run(&shapes, &values, target.as_slice_mut::<f32>()?, &threads);
        log::debug!("{} {shapes:?} -> {shape:?}: {} us", self.operation.name(), begun.elapsed().as_micros());
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for OperationNode {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes = inputs
            .iter()
            .map(|fact| fact.shape.as_concrete().ok_or_else(|| format_err!("a shape is not known")))
            .collect::<TractResult<TVec<&[usize]>>>()?;
        let (onto, shapes) = match shapes.split_last() {
            Some((onto, others)) if self.onto => (Some(onto), others),
            _ => (None, &shapes[..]),
        };
        let shape = self.operation.output_shape(shapes).map_err(|reason| format_err!("{reason}"))?;
        match onto {
            Some(onto) if !can_begin(onto, &shape) => Err(format_err!("{shape:?} is added to {onto:?}")),
            _ => Ok(tvec!(f32::fact(&shape))),
        }
    }
}

/// A value of this shape that begins as another: in its place, if nothing else will read it; or as a vector in every pixel.
fn begun_as(onto: TValue, shape: &[usize], threads: &Threads) -> TractResult<Tensor> {
    if onto.shape() == shape {
        return Ok(onto.into_tensor());
    }
    let plain = onto.try_as_plain_ram()?;
    let vectors = plain.as_slice::<f32>()?;
    let mut output = Tensor::zero::<f32>(shape)?;
    let mut target = output.try_as_plain_ram_mut()?;
    let target = target.as_slice_mut::<f32>()?;
    let channels = vectors.len() / shape[0];
    let pixels = target.len() / vectors.len();
    threads.for_each_item(target, channels, |at, pixel| {
        pixel.copy_from_slice(&vectors[at / pixels * channels..][..channels]);
    });
    Ok(output)
}
