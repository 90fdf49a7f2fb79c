//! One head of attention: its keys and values, packed as the kernels want them, and queries on their way through them.

use crate::engine::threads::Threads;
use crate::kernels::dequantise::GROUP;
use crate::kernels::integer;
use crate::kernels::panel::Panel;
use crate::kernels::quantise::quantise;
use crate::kernels::{LANES, Level, Line, ROWS, softmax, tile};

/// Keys that the queries of a chunk meet before the next: 252 lines of scores are 16 KiB of a first-level cache.
pub const KEYS: usize = 42 * ROWS;

/// The keys and values of one head, packed, in parts of [`KEYS`] keys; rows are filled up to whole tiles.
pub struct Head {
    keys: Keys,
    /// Of each part, `[width][keys]`.
    values: Vec<f32>,
    /// How many keys there are.
    pub count: usize,
    /// Channels of a key.
    pub width: usize,
}

/// `[keys][width]`.
enum Keys {
    Floats(Vec<f32>),
    /// With a scale for each key; the width is filled up to a multiple of four.
    Integers(Vec<i16>, Vec<f32>),
}

/// Some queries of one head, and what comes of them.
pub struct Queries {
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

impl Head {
    /// Nothing yet, with keys to be integers or not.
    pub fn new(integers: bool) -> Self {
        let keys = if integers { Keys::Integers(Vec::new(), Vec::new()) } else { Keys::Floats(Vec::new()) };
        Self { keys, values: Vec::new(), count: 0, width: 0 }
    }

    /// The bytes of so many keys and their values.
    pub fn bytes(count: usize, width: usize, integers: bool) -> usize {
        let keys = count.next_multiple_of(ROWS);
        let key = match integers {
            true => width.next_multiple_of(GROUP) * size_of::<i16>() + size_of::<f32>(),
            false => width * size_of::<f32>(),
        };
        keys * key + width.next_multiple_of(ROWS) * count * size_of::<f32>()
    }

    /// Packs channels `at .. at + width` of rows that have `channels`.
    pub fn pack(
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
                threads.for_each_chunk(&mut rows, KEYS, |part, rows| {
                    for (at, (row, scale)) in (part * KEYS..).zip(rows) {
                        **scale = quantise(level, key(at), row);
                    }
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
    pub fn parts(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.values.chunks(KEYS * self.width.next_multiple_of(ROWS)).enumerate()
    }
}

impl Queries {
    /// Channels `at .. at + width` of at most 16 rows that have `channels`, to meet the keys of a head.
    pub fn new(level: Level, rows: &[f32], channels: usize, at: usize, head: &Head) -> Self {
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
    pub fn meet(
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
    pub fn finish(&self, rows: &mut [f32], channels: usize, at: usize, width: usize) {
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
