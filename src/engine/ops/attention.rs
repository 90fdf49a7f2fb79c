//! Attention that never holds the score matrix.
//!
//! ```text
//! for each picture and head, or all heads at once where there are few keys
//!     pack the keys as rows [keys][d], the values as rows [d][keys]
//!     for 64 queries, of which each thread takes its own
//!         for some keys and values, few enough to stay in a second-level cache
//!             for 16 queries at a time, side by side
//!                 scores[keys][16] = keys . queries          one tile per six keys
//!                 2^ of each score less its query's largest so far
//!                 out[d][16] = out * factor + values . scores
//!         out / sum
//! ```
//! The scores of 16 queries with some keys are all that exists of the matrix at a time: they lie as the product kernel wants
//! its panels, and the softmax works on them in place, a query in each lane.
//!
//! Where products with weights are computed in 16-bit integers, keys and queries are such integers too, each with a scale: the
//! scores are made sooner, and what 11 bits lose of them is less than what `int8` weights lost. Values stay floats.

use super::heads::{Head, KEYS, Queries};
use super::{Operation, rows_of};
use crate::engine::threads::Threads;
use crate::kernels::{Arithmetic, LANES, Level, Line, ROWS};

/// The most queries that one thread takes at a time.
const CHUNK_QUERIES: usize = 4 * LANES;

/// Attention over queries, keys and values that are rows of channels, heads side by side.
#[derive(Debug)]
pub struct Attention {
    heads: usize,
    scale: f32,
    causal: bool,
    masked: bool,
    /// Whether scores are made of integers.
    integers: bool,
    level: Level,
}

/// The keys that a mask leaves, with their values.
struct Seen {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Where each of them was.
    places: Vec<usize>,
}

impl Attention {
    /// With so many heads, and `scale` before the softmax, in a network whose products are computed so.
    ///
    /// # Errors
    /// A sentence, if there are no heads or the scale is not a positive number.
    pub fn new(
        heads: usize,
        scale: f32,
        causal: bool,
        masked: bool,
        arithmetic: Arithmetic,
    ) -> Result<Self, String> {
        if heads == 0 || !(scale.is_finite() && scale > 0.0) {
            return Err(format!("attention with {heads} heads and scale {scale}"));
        }
        let integers = arithmetic == Arithmetic::I16;
        Ok(Self { heads, scale, causal, masked, integers, level: Level::detect() })
    }
}

impl Seen {
    /// Of keys and values that have `channels`; what the mask does not reach is seen.
    fn new(mask: &[f32], keys: &[f32], values: &[f32], channels: usize) -> Self {
        let is_seen = |key: &usize| mask.get(*key).is_none_or(|&seen| seen != 0.0);
        let places: Vec<usize> = (0..keys.len() / channels).filter(is_seen).collect();
        let rows =
            |of: &[f32]| places.iter().flat_map(|at| &of[at * channels..][..channels]).copied().collect();
        Self { keys: rows(keys), values: rows(values), places }
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let (q, k, v) = match (inputs, self.masked) {
            ([q, k, v], false) => (q, k, v),
            ([q, k, v, [n, seen]], true) if *n == q[0] && *seen <= rows_of(k)?.0 / n => (q, k, v),
            _ => {
                return Err(format!("{inputs:?} are not queries, keys and values, and a mask if it has one"));
            }
        };
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
        let down = width.next_multiple_of(ROWS);
        let seen =
            if self.masked { keys * (2 * channels * size_of::<f32>() + size_of::<usize>()) } else { 0 };
        // Where keys are integers, what they are divided among threads by.
        let divided = if self.integers { keys * size_of::<(&mut [i16], &mut f32)>() } else { 0 };
        let packed = self.heads_at_once(keys) * (Head::bytes(keys, width, self.integers) + divided) + seen;
        let of_queries = CHUNK_QUERIES / LANES * (width + down);
        packed + threads * (KEYS.min(keys.next_multiple_of(ROWS)) + of_queries) * size_of::<Line>()
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
            let mask = inputs.get(3).map(|mask| &mask[n * shapes[3][1]..(n + 1) * shapes[3][1]]);
            let seen = mask.map(|mask| Seen::new(mask, keys, values, channels));
            let (keys, values) = seen.as_ref().map_or((keys, values), |seen| (&seen.keys, &seen.values));
            let places = seen.as_ref().map(|seen| &seen.places[..]);
            let count = keys.len() / channels;
            let at_once = threads.share(queries.len() / channels, CHUNK_QUERIES).next_multiple_of(LANES);
            let mut heads: Vec<Head> =
                std::iter::repeat_with(|| Head::new(self.integers)).take(self.heads_at_once(count)).collect();
            for first in (0..channels).step_by(heads.len() * width) {
                threads.for_each_chunk(&mut heads, 1, |at, head| {
                    let places = [channels, first + at * width, width];
                    head[0].pack([keys, values], places, self.level, threads);
                });
                threads.for_each_chunk(out, at_once * channels, |chunk, out| {
                    for (at, head) in (first..).step_by(width).zip(&heads) {
                        self.chunk((head, places), chunk * at_once, queries, channels, at, out);
                    }
                });
            }
        }
    }
}

impl Attention {
    /// How many heads are packed together: with few keys all of them, so that threads wait for one another only twice.
    fn heads_at_once(&self, keys: usize) -> usize {
        if keys <= KEYS { self.heads } else { 1 }
    }

    /// One head's share of some rows of the output, from query `first` on; `places` are those that its keys had before some
    /// were left out.
    fn chunk(
        &self,
        (head, places): (&Head, Option<&[usize]>),
        first: usize,
        queries: &[f32],
        channels: usize,
        at: usize,
        out: &mut [f32],
    ) {
        // How many keys there are up to a query's own place.
        let up_to =
            |query: usize| places.map_or(query + 1, |places| places.partition_point(|&key| key <= query));
        let queries = &queries[first * channels..][..out.len()];
        let mut groups: Vec<Queries> = queries
            .chunks(LANES * channels)
            .map(|rows| Queries::new(self.level, rows, channels, at, head))
            .collect();
        let mut scores = vec![[Line::ZERO; ROWS]; KEYS.min(head.count).div_ceil(ROWS)];
        for (part, values) in head.parts() {
            let keys_before = part * KEYS;
            let count = KEYS.min(head.count - keys_before);
            for (group, queries) in groups.iter_mut().enumerate() {
                let seen = std::array::from_fn(|lane| match self.causal {
                    true => up_to(first + group * LANES + lane).saturating_sub(keys_before).min(count),
                    false => count,
                });
                queries.meet(self.level, head, (part, values), seen, self.scale, &mut scores);
            }
        }
        for (queries, out) in groups.iter().zip(out.chunks_mut(LANES * channels)) {
            queries.finish(out, channels, at, head.width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: usize = 2;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 500.0 - 2.0).collect()
    }

    /// One head's share of one query, by the formula.
    fn expected(
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        at: usize,
        sees: impl Fn(usize) -> bool,
    ) -> Vec<f64> {
        let (channels, width) = (q.len(), q.len() / HEADS);
        let of = |row: &[f32], c: usize| f64::from(row[at + c]);
        let seen =
            keys.chunks(channels).zip(values.chunks(channels)).enumerate().filter(|(key, _)| sees(*key));
        let weighed = seen.map(|(_, (k, v))| {
            let score: f64 = (0..width).map(|c| of(q, c) * of(k, c)).sum();
            ((score * 0.3).exp(), (0..width).map(|c| of(v, c)).collect::<Vec<_>>())
        });
        let weighed: Vec<_> = weighed.collect();
        let sum: f64 = weighed.iter().map(|(weight, _)| weight).sum();
        (0..width).map(|c| weighed.iter().map(|(weight, v)| weight * v[c] / sum).sum()).collect()
    }

    #[test]
    fn it_is_the_formula_in_floats_and_in_integers() {
        let threads = &Threads::new(2);
        for (arithmetic, tolerance) in [(Arithmetic::F32, 2e-5), (Arithmetic::I16, 1e-2)] {
            for (tokens, width, causal, masked) in
                [(7, 5, false, false), (77, 40, true, false), (300, 6, false, true), (530, 40, false, false)]
            {
                let (channels, batch) = (HEADS * width, 2);
                let [q, k, v] = [1, 2, 3].map(|seed| numbers(batch * tokens * channels, seed));
                let mask: Vec<f32> = (0..batch * tokens).map(|at| f32::from(u8::from(at % 3 > 0))).collect();
                let (shape, mask_shape) = ([batch, tokens, channels], [batch, tokens]);
                let mut inputs = vec![&q[..], &k, &v];
                let mut shapes = vec![&shape[..]; 3];
                if masked {
                    inputs.push(&mask);
                    shapes.push(&mask_shape);
                }
                let attention = Attention::new(HEADS, 0.3, causal, masked, arithmetic).unwrap();
                let mut output = vec![0.0; q.len()];
                attention.run(&shapes, &inputs, &mut output, threads);
                for (token, (q, got)) in q.chunks(channels).zip(output.chunks(channels)).enumerate() {
                    let (n, query) = (token / tokens, token % tokens);
                    let of_picture =
                        |rows| &<[f32]>::as_ref(rows)[n * tokens * channels..][..tokens * channels];
                    let sees =
                        |key: usize| (!causal || key <= query) && (!masked || mask[n * tokens + key] != 0.0);
                    for at in (0..channels).step_by(width) {
                        let expected = expected(q, of_picture(&k), of_picture(&v), at, sees);
                        for (got, expected) in got[at..].iter().zip(expected) {
                            assert!(
                                (f64::from(*got) - expected).abs() < tolerance,
                                "{arithmetic:?}, {tokens} tokens: {got} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}
