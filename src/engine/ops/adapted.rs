//! A linear layer or convolution with something added to what it makes: see [`adapters`](crate::engine::adapters).

use std::sync::Arc;

use super::{Conv2d, Linear, Operation, rows_of};
use crate::engine::graph::Op;
use crate::engine::threads::Threads;
use crate::engine::weights::Added;

/// Output rows that one thread takes at a time: with 320 channels, what is added to them stays in a second-level cache.
const CHUNK_ROWS: usize = 126;

/// A layer and what is added to it.
#[derive(Debug)]
pub struct Adapted {
    layer: Arc<dyn Operation>,
    added: Vec<LowRank>,
}

/// Two layers behind one another, the first with few outputs.
#[derive(Debug)]
struct LowRank {
    down: Arc<dyn Operation>,
    up: Arc<Linear>,
    scale: f32,
    /// Whether the first makes each row of one row, so that a few rows go through both before the next.
    by_rows: bool,
}

impl Adapted {
    /// The layer, which `op` describes, with `added` to it.
    ///
    /// # Errors
    /// A sentence, if a weight is of a shape that does not fit.
    pub fn new(op: &Op, layer: Arc<dyn Operation>, added: Vec<Added>) -> Result<Self, String> {
        let low_rank = |Added { down, up, scale }: Added| {
            let down: Arc<dyn Operation> = match *op {
                Op::Conv2d { stride, pads, upsample, .. } => {
                    Arc::new(Conv2d::over(("down", down), None, stride, pads, upsample)?)
                }
                _ => Arc::new(Linear::over(down, None)?),
            };
            let up = Arc::new(Linear::over(up, None)?);
            Ok::<_, String>(LowRank { down, up, scale, by_rows: matches!(op, Op::Linear { .. }) })
        };
        Ok(Self { layer, added: added.into_iter().map(low_rank).collect::<Result<_, _>>()? })
    }
}

impl Operation for Adapted {
    fn name(&self) -> &'static str {
        "Adapted"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let shape = self.layer.output_shape(inputs)?;
        for LowRank { down, up, .. } in &self.added {
            let other = up.output_shape(&[&down.output_shape(inputs)?])?;
            if other != shape {
                return Err(format!("{other:?} is added to {shape:?}"));
            }
        }
        Ok(shape)
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], threads: usize) -> usize {
        let of_added = |low_rank: &LowRank| low_rank.scratch_bytes(inputs, threads).unwrap_or(0);
        let added = self.added.iter().map(of_added).max().unwrap_or(0);
        added.max(self.layer.scratch_bytes(inputs, threads))
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        self.layer.run(shapes, inputs, output, threads);
        self.added.iter().for_each(|low_rank| low_rank.add(shapes, inputs, output, threads));
    }
}

impl LowRank {
    fn scratch_bytes(&self, inputs: &[&[usize]], threads: usize) -> Result<usize, String> {
        let narrow = self.down.output_shape(inputs)?;
        let (rows, rank) = rows_of(&narrow)?;
        let chunk = rows.min(CHUNK_ROWS);
        let outputs = rows_of(&self.up.output_shape(&[&[chunk, rank]])?)?.1;
        let numbers = size_of::<f32>();
        let going_up = chunk * outputs * numbers + self.up.scratch_bytes(&[&[chunk, rank]], 1);
        if self.by_rows {
            let channels = rows_of(inputs[0])?.1;
            let going_down = self.down.scratch_bytes(&[&[chunk, channels]], 1);
            return Ok(threads * (chunk * rank * numbers + going_up.max(going_down)));
        }
        Ok(rows * rank * numbers + (threads * going_up).max(self.down.scratch_bytes(inputs, threads)))
    }

    fn add(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let narrow = self.down.output_shape(shapes).expect("the shape was checked");
        let (rows, rank) = rows_of(&narrow).expect("the shape was checked");
        let (outputs, alone) = (output.len() / rows, &Threads::new(1));
        if self.by_rows {
            let channels = inputs[0].len() / rows;
            return threads.for_each_chunk(output, CHUNK_ROWS * outputs, |at, output| {
                let rows = output.len() / outputs;
                let x = &inputs[0][at * CHUNK_ROWS * channels..][..rows * channels];
                let mut few = vec![0.0; rows * rank];
                self.down.run(&[&[rows, channels]], &[x], &mut few, alone);
                self.add_up(rank, &few, output, alone);
            });
        }
        let mut few = vec![0.0; rows * rank];
        self.down.run(shapes, inputs, &mut few, threads);
        threads.for_each_chunk(output, CHUNK_ROWS * outputs, |at, output| {
            let rows = output.len() / outputs;
            self.add_up(rank, &few[at * CHUNK_ROWS * rank..][..rows * rank], output, alone);
        });
    }

    /// The second layer, of some rows, added to what is there.
    fn add_up(&self, rank: usize, few: &[f32], output: &mut [f32], alone: &Threads) {
        let mut added = vec![0.0; output.len()];
        self.up.run(&[&[few.len() / rank, rank]], &[few], &mut added, alone);
        output.iter_mut().zip(&added).for_each(|(out, added)| *out += self.scale * added);
    }
}
