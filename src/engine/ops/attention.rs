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

use super::{Operation, rows_of};
use crate::engine::threads::Threads;
use crate::kernels::dequantise::GROUP;
use crate::kernels::integer;
use crate::kernels::panel::Panel;
use crate::kernels::quantise::quantise;
use crate::kernels::{Arithmetic, LANES, Level, Line, ROWS, softmax, tile};

/// The most queries that one thread takes at a time.
const CHUNK_QUERIES: usize = 4 * LANES;
/// Keys that the queries of a chunk meet before the next: 252 lines of scores are 16 KiB of a first-level cache.
const KEYS: usize = 42 * ROWS;

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

/// The keys and values of one head, packed, in parts of [`KEYS`] keys; rows are filled up to whole tiles.
#[derive(Default)]
struct Head {
    keys: Keys,
    /// Of each part, `[width][keys]`.
    values: Vec<f32>,
    /// How many keys there are.
    count: usize,
    width: usize,
}

/// `[keys][width]`.
enum Keys {
    Floats(Vec<f32>),
    /// With a scale for each key; the width is filled up to a multiple of four.
    Integers(Vec<i16>, Vec<f32>),
}

/// The keys that a mask leaves, with their values.
struct Seen {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Where each of them was.
    places: Vec<usize>,
}

/// Some queries of one head, and what comes of them.
struct Queries {
    panel: QueryPanel,
    softmax: softmax::Running,
    /// `[width]` filled up to whole tiles, 16 queries side by side.
    mixed: Vec<tile::Tile>,
}

/// `[width]`, 16 queries side by side.
enum QueryPanel {
    Floats(Vec<Line>),
    Integers(Panel<i16>),
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

impl Default for Keys {
    fn default() -> Self {
        Self::Floats(Vec::new())
    }
}

impl Head {
    /// The bytes of so many keys and their values.
    fn bytes(count: usize, width: usize, integers: bool) -> usize {
        let keys = count.next_multiple_of(ROWS);
        let key = match integers {
            true => width.next_multiple_of(GROUP) * size_of::<i16>() + size_of::<f32>(),
            false => width * size_of::<f32>(),
        };
        keys * key + width.next_multiple_of(ROWS) * count * size_of::<f32>()
    }

    /// Packs channels `at .. at + width` of rows that have `channels`.
    fn pack(
        &mut self,
        [keys, values]: [&[f32]; 2],
        [channels, at, width]: [usize; 3],
        level: Level,
        threads: &Threads,
    ) {
        let count = keys.len() / channels;
        let key = |key: usize| &keys[key * channels + at..][..width];
        match &mut self.keys {
            Keys::Floats(rows) => {
                rows.resize(count.next_multiple_of(ROWS) * width, 0.0);
                threads.for_each_item(&mut rows[..count * width], width, |at, row| {
                    row.copy_from_slice(key(at));
                });
            }
            Keys::Integers(rows, scales) => {
                let len = width.next_multiple_of(GROUP);
                scales.resize(count.next_multiple_of(ROWS), 0.0);
                rows.resize(scales.len() * len, 0);
                let mut rows: Vec<_> = rows.chunks_exact_mut(len).zip(scales).take(count).collect();
                threads.for_each_item(&mut rows, 1, |at, row| {
                    let (row, scale) = &mut row[0];
                    **scale = quantise(level, key(at), row);
                });
            }
        }
        let down = width.next_multiple_of(ROWS);
        self.values.resize(down * count, 0.0);
        threads.for_each_chunk(&mut self.values, down * KEYS, |part, spread| {
            let keys = spread.len() / down;
            for (key, value) in values.chunks_exact(channels).skip(part * KEYS).take(keys).enumerate() {
                for (d, &x) in value[at..at + width].iter().enumerate() {
                    spread[d * keys + key] = x;
                }
            }
        });
        (self.count, self.width) = (count, width);
    }

    /// The parts, by their values.
    fn parts(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.values.chunks(KEYS * self.width.next_multiple_of(ROWS)).enumerate()
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

impl Queries {
    /// Channels `at .. at + width` of at most 16 rows that have `channels`, to meet the keys of a head.
    fn new(level: Level, rows: &[f32], channels: usize, at: usize, head: &Head) -> Self {
        let width = head.width;
        let rows = rows.chunks_exact(channels).map(|row| &row[at..at + width]);
        let panel = match &head.keys {
            Keys::Floats(_) => {
                let mut panel = vec![Line::ZERO; width];
                for (lane, row) in rows.enumerate() {
                    panel.iter_mut().zip(row).for_each(|(line, &x)| line[lane] = x);
                }
                QueryPanel::Floats(panel)
            }
            Keys::Integers(..) => QueryPanel::Integers(Panel::of_rows(level, width, rows)),
        };
        let mixed = vec![[Line::ZERO; ROWS]; width.div_ceil(ROWS)];
        Self { panel, softmax: softmax::Running::default(), mixed }
    }

    /// Takes in a part of the keys, with their values, of which query `l` sees the first `seen[l]`.
    fn meet(
        &mut self,
        level: Level,
        head: &Head,
        (part, values): (usize, &[f32]),
        seen: [usize; LANES],
        scale: f32,
        scores: &mut [tile::Tile],
    ) {
        let count = values.len() / (self.mixed.len() * ROWS);
        scores.fill([Line::ZERO; ROWS]);
        match (&self.panel, &head.keys) {
            (QueryPanel::Floats(panel), Keys::Floats(keys)) => {
                let keys = keys[part * KEYS * panel.len()..].chunks_exact(ROWS * panel.len());
                tile::accumulate(level, panel, keys.map(rows).zip(&mut *scores));
            }
            (QueryPanel::Integers(panel), Keys::Integers(keys, scales)) => {
                let len = panel.groups.len() * GROUP;
                let keys = keys[part * KEYS * len..].chunks_exact(ROWS * len);
                let scales = scales[part * KEYS..].as_chunks().0;
                let keys = keys.zip(scales).map(|(six, &scales)| integer::Rows { values: rows(six), scales });
                integer::accumulate(level, panel, keys.zip(&mut *scores));
            }
            _ => unreachable!("queries are made for their keys"),
        }
        let scores = &mut scores.as_flattened_mut()[..count];
        let factors = self.softmax.add(level, scores, seen, scale);
        for line in self.mixed.as_flattened_mut() {
            line.iter_mut().zip(&factors.0).for_each(|(x, factor)| *x *= factor);
        }
        let tiles = values.chunks_exact(ROWS * count).map(rows).zip(&mut self.mixed);
        tile::accumulate(level, scores, tiles);
    }

    /// Writes to channels `at .. at + width` of rows that have `channels`.
    fn finish(&self, rows: &mut [f32], channels: usize, at: usize, width: usize) {
        for (lane, row) in rows.chunks_exact_mut(channels).enumerate() {
            let sum = self.softmax.sum[lane];
            let mixed = self.mixed.as_flattened();
            row[at..at + width].iter_mut().zip(mixed).for_each(|(out, x)| *out = x[lane] / sum);
        }
    }
}

/// Six rows that lie one behind another.
#[inline]
fn rows<T>(six: &[T]) -> [&[T]; ROWS] {
    let len = six.len() / ROWS;
    std::array::from_fn(|r| &six[r * len..][..len])
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
                std::iter::repeat_with(|| self.empty_head()).take(self.heads_at_once(count)).collect();
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
    fn empty_head(&self) -> Head {
        let keys = if self.integers { Keys::Integers(Vec::new(), Vec::new()) } else { Keys::default() };
        Head { keys, ..Head::default() }
    }

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
