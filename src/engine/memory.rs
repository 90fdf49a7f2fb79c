//! How much memory a plan takes: known before it runs.

use tract_core::prelude::*;

use super::node::OperationNode;
use crate::allocator;

/// Whether there are so many bytes now, kept by the allocator or the system's to give: a run that cannot have its memory should
/// fail before it starts.
pub fn is_available(bytes: usize) -> bool {
    let missing = bytes.saturating_sub(allocator::kept_bytes());
    Vec::<u8>::new().try_reserve_exact(missing).is_ok()
}

/// The most bytes that values and scratch memory of a plan hold at a time, its inputs and outputs included.
pub fn peak_bytes(plan: &TypedRunnableModel, threads: usize) -> usize {
    let model = plan.model();
    let bytes = |node: usize| bytes(shape(model, node.into()));
    let order = plan.order_without_consts();
    let mut last_read = vec![0; model.nodes.len()];
    for (step, &node) in order.iter().enumerate() {
        model.nodes[node].inputs.iter().for_each(|input| last_read[input.node] = step);
    }
    model.outputs.iter().for_each(|output| last_read[output.node] = order.len());
    let mut held: usize = model.inputs.iter().map(|input| bytes(input.node)).sum();
    let mut peak = held;
    for (step, &node) in order.iter().enumerate() {
        let Some(entry) = model.nodes[node].op_as::<OperationNode>() else { continue };
        let inputs = &model.nodes[node].inputs;
        let shapes: Vec<&[usize]> = inputs.iter().map(|&input| shape(model, input)).collect();
        let mut read: Vec<usize> = inputs.iter().map(|input| input.node).collect();
        read.sort_unstable();
        read.dedup();
        read.retain(|&input| last_read[input] == step);
        let is_onto = |onto: &&OutletId| {
            let reads = inputs.iter().filter(|input| input.node == onto.node).count();
            entry.onto && reads == 1 && read.contains(&onto.node)
        };
        if let Some(onto) = inputs.last().filter(is_onto)
            && shape(model, *onto) == shape(model, node.into())
        {
            // The value takes its place.
            read.retain(|&input| input != onto.node);
        } else {
            held += bytes(node);
        }
        let taken = shapes.len() - usize::from(entry.onto);
        peak = peak.max(held + entry.operation.scratch_bytes(&shapes[..taken], threads));
        held -= read.iter().map(|&input| bytes(input)).sum::<usize>();
    }
    peak
}

/// The bytes of a value of this shape.
pub fn bytes(shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * size_of::<f32>()
}

/// The shape of a value.
pub fn shape(model: &TypedModel, outlet: OutletId) -> &[usize] {
    model.outlet_fact(outlet).ok().and_then(|fact| fact.shape.as_concrete()).unwrap_or(&[])
}
