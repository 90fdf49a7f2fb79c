//! The part of a graph that can be worked on by rows, and the parts before and behind it that are run whole.

use std::collections::BTreeSet;

use crate::engine::graph::{Graph, Input, InputType, Node, Op, Output, Value};

/// A graph in three parts.
#[derive(Debug)]
pub struct Parts {
    /// Ends in the values that the region reads, then those that the last part reads.
    pub before: Graph,
    /// Reads the first `given` values of `before`; its last node's value is what it makes.
    pub region: Vec<Node>,
    /// How many values the region is given.
    pub given: usize,
    /// Reads the region's value, then the other values of `before`.
    pub after: Graph,
}

/// Divides a graph whose values have these shapes, for one picture; `None` if nothing in it can be worked on by rows.
pub fn divide(graph: &Graph, shapes: &[Vec<usize>]) -> Option<Parts> {
    let first_node = graph.inputs.len();
    let by_rows = |at: usize| {
        let node = &graph.nodes[at];
        let maps =
            node.inputs.iter().all(|&v| is_map(&shapes[v as usize])) && is_map(&shapes[first_node + at]);
        let alike = !matches!(node.op, Op::Add)
            || node.inputs.iter().all(|&v| shapes[v as usize] == shapes[first_node + at]);
        works_by_rows(&node.op) && maps && alike
    };
    let size = |at: usize| shapes[first_node + at].iter().product::<usize>();
    let runs = runs(graph.nodes.len(), by_rows);
    let largest = runs.into_iter().max_by_key(|run| run.clone().map(size).sum::<usize>())?;
    let run = (largest.start + 1..=largest.end)
        .rev()
        .map(|end| largest.start..end)
        .find(|run| leaving(graph, run) == [(first_node + run.end - 1) as Value])?;
    Some(parts(graph, &run))
}

fn is_map(shape: &[usize]) -> bool {
    matches!(shape, [1, _, _, _])
}

fn works_by_rows(op: &Op) -> bool {
    matches!(
        op,
        Op::Conv2d { .. }
            | Op::Linear { .. }
            | Op::GroupNorm { .. }
            | Op::Add
            | Op::Activation { .. }
            | Op::Scale { .. }
            | Op::Shift { .. }
            | Op::Upsample
    )
}

/// The longest ranges of `0..count` in which `belongs` holds everywhere.
fn runs(count: usize, belongs: impl Fn(usize) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for at in 0..=count {
        if at == count || !belongs(at) {
            if at > start {
                runs.push(start..at);
            }
            start = at + 1;
        }
    }
    runs
}

/// The values made by a run of nodes and read outside of it.
fn leaving(graph: &Graph, run: &std::ops::Range<usize>) -> Vec<Value> {
    let made = (graph.inputs.len() + run.start) as Value..(graph.inputs.len() + run.end) as Value;
    let behind = graph.nodes[run.end..].iter().flat_map(|node| node.inputs.iter().copied());
    let shown = graph.outputs.iter().map(|output| output.value);
    behind.chain(shown).filter(|value| made.contains(value)).collect::<BTreeSet<_>>().into_iter().collect()
}

fn parts(graph: &Graph, run: &std::ops::Range<usize>) -> Parts {
    let first = (graph.inputs.len() + run.start) as Value;
    let last = (graph.inputs.len() + run.end) as Value - 1;
    let region = &graph.nodes[run.clone()];
    let reads = |nodes: &[Node]| {
        let read = nodes.iter().flat_map(|node| node.inputs.iter().copied());
        read.filter(|&value| value < first).collect::<BTreeSet<_>>()
    };
    let given = reads(region);
    let shown = graph.outputs.iter().map(|output| output.value).filter(|&value| value < first);
    let others = reads(&graph.nodes[run.end..]).into_iter().chain(shown).collect::<BTreeSet<_>>();
    let place = |values: &BTreeSet<Value>, value: Value| {
        values.iter().position(|&v| v == value).expect("it is among them") as Value
    };
    let output = |&value: &Value| Output { name: value.to_string(), value };
    let before = Graph {
        inputs: graph.inputs.clone(),
        nodes: graph.nodes[..run.start].to_vec(),
        outputs: given.iter().chain(&others).map(output).collect(),
    };
    let inside = |value: Value| match value.checked_sub(first) {
        Some(node) => given.len() as Value + node,
        None => place(&given, value),
    };
    let behind = |value: Value| match value {
        value if value < first => 1 + place(&others, value),
        value if value == last => 0,
        value => others.len() as Value + value - last,
    };
    let input = |value: &Value| Input { name: value.to_string(), dtype: InputType::F32, shape: Vec::new() };
    let after = Graph {
        inputs: std::iter::once(&last).chain(&others).map(input).collect(),
        nodes: renumbered(&graph.nodes[run.end..], behind),
        outputs: graph.outputs.iter().map(|o| Output { value: behind(o.value), ..o.clone() }).collect(),
    };
    Parts { before, region: renumbered(region, inside), given: given.len(), after }
}

fn renumbered(nodes: &[Node], number: impl Fn(Value) -> Value) -> Vec<Node> {
    let node =
        |node: &Node| Node { inputs: node.inputs.iter().map(|&v| number(v)).collect(), ..node.clone() };
    nodes.iter().map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: Op, inputs: &[Value]) -> Node {
        Node { name: format!("{op:?}"), inputs: inputs.to_vec(), op }
    }

    /// Two inputs, a layout, three steps by rows around a token operation, a layout.
    fn graph() -> (Graph, Vec<Vec<usize>>) {
        let input = |name: &str| Input { name: name.into(), dtype: InputType::F32, shape: vec![None; 4] };
        let nodes = vec![
            node(Op::ChannelsLast, &[0]),          // 2
            node(Op::Upsample, &[2]),              // 3
            node(Op::Geglu, &[3]),                 // 4
            node(Op::Scale { factor: 2.0 }, &[4]), // 5
            node(Op::Add, &[5, 4]),                // 6
            node(Op::Upsample, &[6]),              // 7
            node(Op::ChannelsFirst, &[7]),         // 8
            node(Op::Add, &[8, 1]),                // 9
        ];
        let outputs = vec![Output { name: "sample".into(), value: 9 }];
        let mut shapes = vec![vec![1, 4, 8, 8]; 2];
        shapes.extend([vec![1, 8, 8, 4], vec![1, 16, 16, 4]]);
        shapes.extend(vec![vec![1, 16, 16, 2]; 3]);
        shapes.extend([vec![1, 32, 32, 2], vec![1, 2, 32, 32], vec![1, 2, 32, 32]]);
        (Graph { inputs: vec![input("x"), input("y")], nodes, outputs }, shapes)
    }

    #[test]
    fn the_largest_run_by_rows_is_cut_out() {
        let (graph, shapes) = graph();
        let parts = divide(&graph, &shapes).unwrap();
        assert_eq!(parts.before.nodes.len(), 3);
        assert_eq!(parts.before.outputs.iter().map(|o| o.value).collect::<Vec<_>>(), [4, 1]);
        assert_eq!(parts.given, 1);
        let inputs: Vec<_> = parts.region.iter().map(|n| n.inputs.clone()).collect();
        assert_eq!(inputs, [vec![0], vec![1, 0], vec![2]]);
        // The region's value and value 1; then the two nodes.
        let inputs: Vec<_> = parts.after.nodes.iter().map(|n| n.inputs.clone()).collect();
        assert_eq!(inputs, [vec![0], vec![2, 1]]);
        assert_eq!(parts.after.outputs[0].value, 3);
    }

    #[test]
    fn a_run_ends_where_one_value_leaves_it() {
        let (mut graph, shapes) = graph();
        // Value 6 is needed behind the region too: the second doubling stays outside.
        graph.nodes[7].inputs = vec![8, 6];
        let parts = divide(&graph, &shapes).unwrap();
        assert_eq!(parts.region.len(), 2);
        assert_eq!(parts.after.nodes.len(), 3);
    }

    #[test]
    fn pictures_of_several_and_graphs_without_maps_stay_whole() {
        let (graph, mut shapes) = graph();
        shapes.iter_mut().for_each(|shape| shape[0] = 2);
        assert!(divide(&graph, &shapes).is_none());
    }
}
