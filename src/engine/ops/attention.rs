//! Attention that never holds the score matrix.
//!
//! ```text
//! for each picture and head
//!     pack the keys as panels [d][16 keys], the values as panels [keys][16 of d]
//!     for six queries at a time
//!         scores[6][keys] = queries . keys           one tile per 16 keys
//!         exp of each row less its maximum, its sum kept
//!         out[6][d] = scores . values / sum
//! ```
//! The scores of six queries are all that exists of the matrix at a time.

use super::{Operation, rows_of};
use crate::engine::threads::Threads;
use crate::kernels::{LANES, Level, Line, ROWS, softmax, tile};

/// Queries that one thread takes at a time.
const CHUNK_QUERIES: usize = 8 * ROWS;

/// Attention over queries, keys and values that are rows of channels, heads side by side.
#[derive(Debug)]
pub struct Attention {
    heads: usize,
    scale: f32,
    causal: bool,
    level: Level,
}

/// The keys and values of one head, packed; `count` keys of `width` channels.
struct Head {
    keys: Vec<Line>,
    values: Vec<Line>,
    count: usize,
    width: usize,
}

impl Attention {
    /// With so many heads, and `scale` before the softmax.
    ///
    /// # Errors
    /// A sentence, if there are no heads or the scale is not a positive number.
    pub fn new(heads: usize, scale: f32, causal: bool) -> Result<Self, String> {
        if heads == 0 || !(scale.is_finite() && scale > 0.0) {
            return Err(format!("attention with {heads} heads and scale {scale}"));
        }
        Ok(Self { heads, scale, causal, level: Level::detect() })
    }

    /// The exponentials of the scores of six queries, and their sums; `queries` are the head's channels of each.
    fn scores(
        &self,
        head: &Head,
        first: usize,
        queries: &[&[f32]; ROWS],
        scores: &mut [Vec<f32>; ROWS],
    ) -> [f32; ROWS] {
        for (at, panel) in head.keys.chunks_exact(head.width).enumerate() {
            let mut acc = [Line::ZERO; ROWS];
            tile::accumulate(self.level, queries, panel, &mut acc);
            for (row, sums) in scores.iter_mut().zip(&acc) {
                row[at * LANES..(at + 1) * LANES].copy_from_slice(&sums.0);
            }
        }
        std::array::from_fn(|r| {
            let seen = if self.causal { head.count.min(first + r + 1) } else { head.count };
            scores[r][seen..].fill(0.0);
            softmax::exponentials(&mut scores[r][..seen], self.scale)
        })
    }
}

impl Head {
    /// Packs channels `at .. at + width` of rows that have `channels`.
    fn pack(keys: &[f32], values: &[f32], channels: usize, at: usize, width: usize) -> Self {
        let count = keys.len() / channels;
        let mut packed = vec![Line::ZERO; count.div_ceil(LANES) * width];
        for (n, row) in keys.chunks_exact(channels).enumerate() {
            let panel = &mut packed[n / LANES * width..][..width];
            for (line, &key) in panel.iter_mut().zip(&row[at..at + width]) {
                line[n % LANES] = key;
            }
        }
        let mut spread = vec![Line::ZERO; width.div_ceil(LANES) * count];
        for (n, row) in values.chunks_exact(channels).enumerate() {
            for (block, part) in row[at..at + width].chunks(LANES).enumerate() {
                spread[block * count + n][..part.len()].copy_from_slice(part);
            }
        }
        Self { keys: packed, values: spread, count, width }
    }

    /// The room that a row of scores takes, whole panels of keys.
    fn row_len(&self) -> usize {
        self.count.next_multiple_of(LANES)
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [q, k, v] = inputs else { return Err("it takes queries, keys and values".into()) };
        let (channels, others) = (rows_of(q)?.1, [rows_of(k)?.1, rows_of(v)?.1]);
        let fits = others == [channels; 2] && k == v && q[0] == k[0] && channels.is_multiple_of(self.heads);
        if !fits {
            return Err(format!("queries {q:?}, keys {k:?} and values {v:?} do not go together"));
        }
        Ok(q.to_vec())
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], threads: usize) -> usize {
        let (keys, channels) =
            (inputs[1][1..inputs[1].len() - 1].iter().product::<usize>(), inputs[1][inputs[1].len() - 1]);
        let width = channels / self.heads;
        let packed = keys.next_multiple_of(LANES) * width + width.next_multiple_of(LANES) * keys;
        (packed + threads * ROWS * keys.next_multiple_of(LANES)) * size_of::<f32>()
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let batch = shapes[0][0];
        let channels = shapes[0][shapes[0].len() - 1];
        let width = channels / self.heads;
        let (per_query, per_key) = (inputs[0].len() / batch, inputs[1].len() / batch);
        let pictures = inputs[0].chunks_exact(per_query).zip(output.chunks_exact_mut(per_query));
        for (n, (queries, out)) in pictures.enumerate() {
            let keys = &inputs[1][n * per_key..(n + 1) * per_key];
            let values = &inputs[2][n * per_key..(n + 1) * per_key];
            for at in (0..channels).step_by(width) {
                let head = Head::pack(keys, values, channels, at, width);
                threads.for_each_chunk(out, CHUNK_QUERIES * channels, |chunk, out| {
                    self.chunk(&head, chunk * CHUNK_QUERIES, queries, channels, at, out);
                });
            }
        }
    }
}

impl Attention {
    /// One head's share of some rows of the output, from query `first` on.
    fn chunk(&self, head: &Head, first: usize, queries: &[f32], channels: usize, at: usize, out: &mut [f32]) {
        let mut scores: [Vec<f32>; ROWS] = std::array::from_fn(|_| vec![0.0; head.row_len()]);
        for (group, lines) in out.chunks_mut(ROWS * channels).enumerate() {
            let first = first + group * ROWS;
            let count = lines.len() / channels;
            let rows =
                std::array::from_fn(|r| &queries[(first + r.min(count - 1)) * channels + at..][..head.width]);
            let sums = self.scores(head, first, &rows, &mut scores);
            let weights = std::array::from_fn(|r| &scores[r][..head.count]);
            for (block, panel) in head.values.chunks_exact(head.count).enumerate() {
                let mut acc = [Line::ZERO; ROWS];
                tile::accumulate(self.level, &weights, panel, &mut acc);
                let wide = LANES.min(head.width - block * LANES);
                for ((line, mixed), sum) in lines.chunks_exact_mut(channels).zip(&acc).zip(sums) {
                    let out = &mut line[at + block * LANES..][..wide];
                    out.iter_mut().zip(&mixed.0).for_each(|(out, x)| *out = x / sum);
                }
            }
        }
    }
}
