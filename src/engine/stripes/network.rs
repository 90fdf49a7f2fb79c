//! A region with its operations built and its shapes known.

use std::ops::Range;
use std::sync::Arc;

use crate::engine::graph::{Node, Op};
use crate::engine::ops::{self, Affine, Conv2d, GroupNorm, Linear, Operation};
use crate::engine::threads::Threads;
use crate::engine::weights::Weights;

/// Operations in an order in which they can be computed. Value `n` is what was given, or what node `n - given` makes.
#[derive(Debug)]
pub struct Network {
    /// How many values are given.
    pub given: usize,
    /// The operations.
    pub nodes: Vec<Member>,
    /// Of every value: `[height, width, channels]`.
    pub shapes: Vec<[usize; 3]>,
    /// The threads that it is planned for.
    threads: usize,
}

/// An operation and the values that it reads.
#[derive(Debug)]
pub struct Member {
    /// What is done.
    pub op: RowOp,
    /// The values read.
    pub inputs: Vec<usize>,
}

/// An operation whose output rows can be computed from some of its input's rows.
#[derive(Debug)]
pub enum RowOp {
    /// Reads neighbouring rows too.
    Conv(Conv2d),
    /// A product for every pixel.
    Linear(Linear),
    /// Needs sums over the whole of its input first.
    Norm(GroupNorm),
    /// Makes two rows of each.
    Upsample(Arc<dyn Operation>),
    /// A row of each input makes a row.
    Pointwise(Arc<dyn Operation>),
}

impl Network {
    /// Builds a region over weights, given maps of these shapes, to be worked through by so many threads.
    ///
    /// # Errors
    /// The node's name and a sentence, if one does not fit its weights or inputs.
    pub fn new(
        region: &[Node],
        weights: &Weights,
        given: &[[usize; 3]],
        threads: usize,
    ) -> Result<Self, (String, String)> {
        let mut network = Self { given: given.len(), nodes: Vec::new(), shapes: given.to_vec(), threads };
        for node in region {
            let refuse = |reason: String| (node.name.clone(), reason);
            let op = RowOp::new(&node.op, weights).map_err(refuse)?;
            let inputs: Vec<usize> = node.inputs.iter().map(|&value| value as usize).collect();
            let shapes: Vec<[usize; 4]> = inputs.iter().map(|&v| whole(network.shapes[v])).collect();
            let shapes: Vec<&[usize]> = shapes.iter().map(<[usize; 4]>::as_slice).collect();
            let shape = op.operation().output_shape(&shapes).map_err(refuse)?;
            network.shapes.push([shape[1], shape[2], shape[3]]);
            network.nodes.push(Member { op, inputs });
        }
        Ok(network)
    }

    /// The node that makes a value.
    ///
    /// # Panics
    /// If the value is given.
    pub fn maker(&self, value: usize) -> &Member {
        &self.nodes[value - self.given]
    }

    /// The values that a value is made from; none if it is given.
    pub fn inputs(&self, value: usize) -> &[usize] {
        value.checked_sub(self.given).map_or(&[], |at| &self.nodes[at].inputs)
    }

    /// Numbers in a row of a value.
    pub fn row_len(&self, value: usize) -> usize {
        self.shapes[value][1] * self.shapes[value][2]
    }

    /// The rows of its input that `rows` of a value are made of.
    pub fn rows_read(&self, value: usize, rows: &Range<usize>) -> Range<usize> {
        match &self.maker(value).op {
            RowOp::Conv(conv) => conv.rows_read(rows, self.shapes[self.inputs(value)[0]][0]),
            RowOp::Upsample(_) => rows.start / 2..rows.end.div_ceil(2),
            RowOp::Linear(_) | RowOp::Norm(_) | RowOp::Pointwise(_) => rows.clone(),
        }
    }

    /// Multiplications that so many rows of a value take, those of products only.
    pub fn macs(&self, value: usize, rows: usize) -> u64 {
        let [_, width, channels] = self.shapes[value];
        (match &self.maker(value).op {
            RowOp::Conv(conv) => conv.macs([1, rows, width]),
            RowOp::Linear(linear) => rows * width * channels * linear.inputs(),
            RowOp::Norm(_) | RowOp::Upsample(_) | RowOp::Pointwise(_) => 0,
        }) as u64
    }

    /// Bytes that are allocated to compute so many rows of a value, beside them and what they are made of.
    pub fn scratch_bytes(&self, value: usize, rows: usize) -> usize {
        let member = self.maker(value);
        match &member.op {
            RowOp::Conv(conv) => conv.scratch_bytes_of([1, rows, self.shapes[value][1]], self.threads),
            RowOp::Upsample(_) => (rows + 2) * self.row_len(value) * size_of::<f32>(),
            RowOp::Linear(_) | RowOp::Norm(_) | RowOp::Pointwise(_) => {
                let shapes: Vec<_> = member.inputs.iter().map(|&input| self.some_rows(input, rows)).collect();
                let shapes: Vec<&[usize]> = shapes.iter().map(<[usize; 4]>::as_slice).collect();
                member.op.operation().scratch_bytes(&shapes, self.threads)
            }
        }
    }

    fn some_rows(&self, value: usize, rows: usize) -> [usize; 4] {
        let [_, width, channels] = self.shapes[value];
        [1, rows, width, channels]
    }

    /// Whether a normalisation reads the value.
    pub fn is_normalised(&self, value: usize) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, RowOp::Norm(_)) && node.inputs[0] == value)
    }

    /// Computes `rows` of a value from rows of what its node reads, each with the number of its first row; there may be
    /// more of these than it takes.
    pub fn run_rows(
        &self,
        value: usize,
        rows: &Range<usize>,
        inputs: &[(usize, &[f32])],
        affine: Option<&Affine>,
        output: &mut [f32],
        threads: &Threads,
    ) {
        let member = self.maker(value);
        let read = self.rows_read(value, rows);
        let trimmed = member.inputs.iter().zip(inputs).map(|(&input, (first, values))| {
            let row_len = self.row_len(input);
            &values[(read.start - first) * row_len..][..read.len() * row_len]
        });
        let inputs: Vec<&[f32]> = trimmed.collect();
        match &member.op {
            RowOp::Conv(conv) => {
                conv.run_rows(
                    whole(self.shapes[member.inputs[0]]),
                    (read.start, inputs[0]),
                    (rows.start, output),
                    threads,
                );
            }
            RowOp::Norm(norm) => {
                norm.apply(affine.expect("its sums were taken"), inputs[0], output, threads);
            }
            RowOp::Linear(_) | RowOp::Pointwise(_) => {
                let shapes: Vec<_> =
                    member.inputs.iter().map(|&input| self.some_rows(input, rows.len())).collect();
                let shapes: Vec<&[usize]> = shapes.iter().map(<[usize; 4]>::as_slice).collect();
                member.op.operation().run(&shapes, &inputs, output, threads);
            }
            RowOp::Upsample(op) => {
                let mut doubled = vec![0.0; 2 * read.len() * self.row_len(value)];
                op.run(&[&self.some_rows(member.inputs[0], read.len())], &inputs, &mut doubled, threads);
                let start = (rows.start - 2 * read.start) * self.row_len(value);
                output.copy_from_slice(&doubled[start..][..output.len()]);
            }
        }
    }
}

impl RowOp {
    fn new(op: &Op, weights: &Weights) -> Result<Self, String> {
        Ok(match op {
            Op::Conv2d { weight, bias, stride, pads, upsample } => {
                Self::Conv(Conv2d::new(weights, weight, bias.as_deref(), *stride, *pads, *upsample)?)
            }
            Op::Linear { weight, bias } => Self::Linear(Linear::new(weights, weight, bias.as_deref(), None)?),
            Op::GroupNorm { weight, bias, groups, epsilon, silu } => {
                Self::Norm(GroupNorm::new(weights, weight, bias, *groups, *epsilon, *silu)?)
            }
            Op::Upsample => Self::Upsample(ops::build(op, weights)?),
            _ => Self::Pointwise(ops::build(op, weights)?),
        })
    }

    fn operation(&self) -> &dyn Operation {
        match self {
            Self::Conv(conv) => conv,
            Self::Linear(linear) => linear,
            Self::Norm(norm) => norm,
            Self::Upsample(op) | Self::Pointwise(op) => op.as_ref(),
        }
    }
}

fn whole([height, width, channels]: [usize; 3]) -> [usize; 4] {
    [1, height, width, channels]
}
