//! Attention that never holds the score matrix.
//!
//! ```text
//! for each picture and head
//!     pack the keys as panels [d][16 keys], the values as panels [keys][16 of d]
//!     for 48 queries, of which each thread takes its own
//!         for some keys and values, few enough to stay in a second-level cache
//!             for six queries at a time
//!                 scores[6][keys] = queries . keys           one tile per 16 keys
//!                 exp of each row less its largest so far
//!                 out[6][d] = out * factor + scores . values
//!         out / sum
//! ```
//! The scores of six queries with some keys are all that exists of the matrix at a time.

use super::{Operation, rows_of};
use crate::engine::threads::Threads;
use crate::kernels::{LANES, Level, Line, ROWS, softmax, tile};

/// Queries that one thread takes at a time.
const CHUNK_QUERIES: usize = 8 * ROWS;
/// Keys that the queries of a chunk meet before the next: with 40 to 160 channels, 176 to 640 KiB of keys and values.
const KEYS: usize = 512;

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
    /// `[count / 16][width]`, 16 keys side by side.
    keys: Vec<Line>,
    /// For each [`KEYS`] keys, `[width / 16][keys]`, 16 channels side by side.
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
}

impl Head {
    /// Packs channels `at .. at + width` of rows that have `channels`.
    fn pack(
        keys: &[f32],
        values: &[f32],
        channels: usize,
        at: usize,
        width: usize,
        threads: &Threads,
    ) -> Self {
        let count = keys.len() / channels;
        let [keys, values] = [keys, values].map(|rows| {
            let rows = rows.chunks_exact(channels);
            rows.map(|row| &row[at..at + width]).collect::<Vec<_>>()
        });
        let mut packed = vec![Line::ZERO; count.div_ceil(LANES) * width];
        threads.for_each_item(&mut packed, width, |panel, lines| {
            for lane in 0..LANES.min(count - panel * LANES) {
                let key = keys[panel * LANES + lane];
                lines.iter_mut().zip(key).for_each(|(line, &key)| line[lane] = key);
            }
        });
        let blocks = width.div_ceil(LANES);
        let mut spread = vec![Line::ZERO; blocks * count];
        threads.for_each_item(&mut spread, blocks * KEYS, |part, lines| {
            let keys = lines.len() / blocks;
            for (n, value) in values[part * KEYS..][..keys].iter().enumerate() {
                for (block, some) in value.chunks(LANES).enumerate() {
                    lines[block * keys + n][..some.len()].copy_from_slice(some);
                }
            }
        });
        Self { keys: packed, values: spread, count, width }
    }

    /// The panels of [`KEYS`] keys, one for each 16 of them, and of their values, one for each 16 channels.
    fn parts(&self) -> impl Iterator<Item = (&[Line], &[Line])> {
        let blocks = self.width.div_ceil(LANES);
        self.keys.chunks(KEYS / LANES * self.width).zip(self.values.chunks(KEYS * blocks))
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
        let blocks = width.div_ceil(LANES);
        let packed = (keys.div_ceil(LANES) * width + blocks * keys) * size_of::<Line>();
        let some_keys = KEYS.min(keys.next_multiple_of(LANES));
        let of_thread = (2 * some_keys / LANES + CHUNK_QUERIES / ROWS * blocks) * size_of::<tile::Tile>();
        packed + threads * of_thread
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
                let head = Head::pack(keys, values, channels, at, width, threads);
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
        let blocks = head.width.div_ceil(LANES);
        let room = KEYS.min(head.count.next_multiple_of(LANES));
        let mut scores = vec![[Line::ZERO; ROWS]; room / LANES];
        let mut weights: [Vec<f32>; ROWS] = std::array::from_fn(|_| vec![0.0; room]);
        let sixes = out.len().div_ceil(ROWS * channels);
        let mut softmax = vec![softmax::Running::default(); sixes];
        let mut mixed = vec![[Line::ZERO; ROWS]; sixes * blocks];
        for (part, (keys, values)) in head.parts().enumerate() {
            let count = values.len() / blocks;
            for (six, (softmax, mixed)) in softmax.iter_mut().zip(mixed.chunks_exact_mut(blocks)).enumerate()
            {
                let first = first + six * ROWS;
                let query = |r: usize| first + r.min(queries.len() / channels - first - 1);
                let rows = std::array::from_fn(|r| &queries[query(r) * channels + at..][..head.width]);
                for (panel, scores) in keys.chunks_exact(head.width).zip(&mut scores) {
                    *scores = [Line::ZERO; ROWS];
                    tile::accumulate(self.level, &rows, panel, scores);
                }
                let seen = std::array::from_fn(|r| match self.causal {
                    true => count.min((query(r) + 1).saturating_sub(part * KEYS)),
                    false => count,
                });
                let factors = softmax.add(self.level, &scores, seen, self.scale, &mut weights);
                let weights = std::array::from_fn(|r| &weights[r][..count]);
                for (panel, mixed) in values.chunks_exact(count).zip(mixed) {
                    for (line, factor) in mixed.iter_mut().zip(factors) {
                        line.iter_mut().for_each(|x| *x *= factor);
                    }
                    tile::accumulate(self.level, &weights, panel, mixed);
                }
            }
        }
        for (n, line) in out.chunks_exact_mut(channels).enumerate() {
            let (six, r) = (n / ROWS, n % ROWS);
            for (block, out) in line[at..at + head.width].chunks_mut(LANES).enumerate() {
                let mixed = &mixed[six * blocks + block][r];
                out.iter_mut().zip(&mixed.0).for_each(|(out, x)| *out = x / softmax[six].sum[r]);
            }
        }
    }
}
