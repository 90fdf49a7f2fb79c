//! One of our operations as a node of a tract model. No operation knows of tract, and tract of none.

use std::sync::Arc;

use tract_core::internal::*;

use super::ops::Operation;
use super::pulse::Pulse;
use super::threads::Threads;
use super::weights::Pages;

/// An operation in a tract model: f32 in, one f32 out. Before it runs the pulse beats, and some weights are asked for.
#[derive(Debug, Clone)]
pub struct OperationNode {
    pub operation: Arc<dyn Operation>,
    pub pulse: Pulse,
    pub ahead: Vec<Pages>,
}

impl PartialEq for OperationNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.operation, &other.operation)
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

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.pulse.beat()?;
        self.ahead.iter().for_each(Pages::expect);
        let shapes: TVec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let shape = self.operation.output_shape(&shapes).map_err(|reason| format_err!("{reason}"))?;
        let plain = inputs.iter().map(|input| input.try_as_plain_ram()).collect::<TractResult<TVec<_>>>()?;
        let values = plain.iter().map(|input| input.as_slice::<f32>()).collect::<TractResult<TVec<_>>>()?;
        let begun = std::time::Instant::now();
        let mut output = Tensor::zero::<f32>(&shape)?;
        let mut target = output.try_as_plain_ram_mut()?;
        self.operation.run(&shapes, &values, target.as_slice_mut::<f32>()?, &Threads::current());
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
        let shape = self.operation.output_shape(&shapes).map_err(|reason| format_err!("{reason}"))?;
        Ok(tvec!(f32::fact(&shape)))
    }
}
