//! Where the words of a prompt act: cross-attention as maps over the picture.
//!
//! ```text
//! p[head, cell, token] = softmax over the tokens of scale * query[head, cell] . key[head, token]
//! map[cell, token]     = mean over steps, layers and heads of p, each layer brought to the size of the largest
//! ```
//! Source: Tang et al. 2022, arXiv:2210.04885, who take sums where these are means.

use crate::engine::{CrossAttention, NamedTensor};
use crate::kernels::elementary::exp;

/// How strongly each cell of a map attends to something: f32 `[height_cells, width_cells]`, row-major, 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMap {
    values: Vec<f32>,
    height_cells: usize,
    width_cells: usize,
}

impl AttentionMap {
    /// Nothing is attended to.
    ///
    /// # Panics
    /// If there are no cells.
    fn zeros([height_cells, width_cells]: [usize; 2]) -> Self {
        assert!(height_cells > 0 && width_cells > 0, "a map has cells");
        Self { values: vec![0.0; height_cells * width_cells], height_cells, width_cells }
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Height and width in cells.
    pub fn size(&self) -> [usize; 2] {
        [self.height_cells, self.width_cells]
    }

    /// The largest value and where it is: row, column. Of equals the first.
    pub fn peak(&self) -> (f32, [usize; 2]) {
        let cells = self.values.iter().enumerate().rev();
        let (at, &value) = cells.max_by(|a, b| a.1.total_cmp(b.1)).expect("a map has cells");
        (value, [at / self.width_cells, at % self.width_cells])
    }

    /// The map in another size, bilinear between the centres of its cells.
    ///
    /// # Panics
    /// If there are no cells.
    pub fn resized(&self, size: [usize; 2]) -> Self {
        if size == self.size() {
            return self.clone();
        }
        let mut resized = Self::zeros(size);
        let [rows, columns] = [(self.height_cells, size[0]), (self.width_cells, size[1])]
            .map(|(from, to)| (0..to).map(|at| between(at, from, to)).collect::<Vec<_>>());
        let cells = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        for (out, (&(top, bottom, down), &(left, right, across))) in resized.values.iter_mut().zip(cells) {
            let along = |row: usize| {
                let row = &self.values[row * self.width_cells..];
                row[left] + across * (row[right] - row[left])
            };
            *out = along(top) + down * (along(bottom) - along(top));
        }
        resized
    }

    /// Adds `factor` times another map of the same size.
    fn add(&mut self, factor: f32, other: &Self) {
        assert_eq!(self.size(), other.size(), "maps of two sizes");
        self.values.iter_mut().zip(&other.values).for_each(|(x, y)| *x += factor * y);
    }

    /// The sum of maps of one size; `None` of none.
    ///
    /// # Panics
    /// If their sizes differ.
    pub fn sum(maps: &[Self]) -> Option<Self> {
        let (first, others) = maps.split_first()?;
        let mut sum = first.clone();
        others.iter().for_each(|map| sum.add(1.0, map));
        Some(sum)
    }
}

/// The two cells of a line of `from` that cell `at` of a line of `to` lies between, and how far it is from the first.
fn between(at: usize, from: usize, to: usize) -> (usize, usize, f32) {
    let place = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
    let first = place as usize;
    (first, (first + 1).min(from - 1), place - first as f32)
}

/// Gathers the cross-attention of passes through a network.
#[derive(Debug)]
pub struct AttentionRecorder {
    layers: Vec<CrossAttention>,
    /// The sum of all passes, a map for each token.
    sum: Vec<AttentionMap>,
    passes: usize,
}

impl AttentionRecorder {
    /// For a network with these layers.
    pub fn new(layers: Vec<CrossAttention>) -> Self {
        Self { layers, sum: Vec::new(), passes: 0 }
    }

    /// Adds what a pass gave for the first picture of its batch.
    pub fn add(&mut self, outputs: &[NamedTensor]) {
        let output = |name: &str| outputs.iter().find(|output| output.name == name);
        let layers = self.layers.iter().filter_map(|layer| {
            let (queries, keys) = (output(&layer.queries)?, output(&layer.keys)?);
            Some(attended(queries, keys, layer.heads, layer.scale))
        });
        let layers: Vec<Vec<AttentionMap>> = layers.collect();
        let Some(size) = layers.iter().flatten().map(AttentionMap::size).max() else { return };
        let factor = 1.0 / layers.len() as f32;
        for (token, map) in layers.iter().flat_map(|maps| maps.iter().enumerate()) {
            if self.sum.len() == token {
                self.sum.push(AttentionMap::zeros(size));
            }
            self.sum[token].add(factor, &map.resized(size));
        }
        self.passes += 1;
    }

    /// The mean over all passes, a map for each token of the text.
    pub fn maps(&self) -> Vec<AttentionMap> {
        let mean = |sum: &AttentionMap| {
            let mut map = AttentionMap::zeros(sum.size());
            map.add(1.0 / self.passes as f32, sum);
            map
        };
        self.sum.iter().map(mean).collect()
    }
}

/// For each token how strongly the cells of the first picture attend to it, the mean over heads. Queries are
/// `[batch, height, width, channels]`, keys `[batch, tokens, channels]`.
///
/// # Panics
/// If they are not.
fn attended(queries: &NamedTensor, keys: &NamedTensor, heads: usize, scale: f32) -> Vec<AttentionMap> {
    let (&[_, height, width, channels], &[_, tokens, _]) = (&queries.shape[..], &keys.shape[..]) else {
        panic!("queries {:?} of a map, and keys {:?} of tokens", queries.shape, keys.shape)
    };
    let mut maps = vec![AttentionMap::zeros([height, width]); tokens];
    let (share, head_channels) = (1.0 / heads as f64, channels / heads);
    let mut scores = vec![0.0; tokens];
    for (cell, query) in queries.values.chunks_exact(channels).take(height * width).enumerate() {
        for head in 0..heads {
            let of_head = head * head_channels..(head + 1) * head_channels;
            for (score, key) in scores.iter_mut().zip(keys.values.chunks_exact(channels)) {
                let products = query[of_head.clone()].iter().zip(&key[of_head.clone()]).map(|(q, k)| q * k);
                *score = f64::from(scale * products.sum::<f32>());
            }
            softmax(&mut scores);
            maps.iter_mut().zip(&scores).for_each(|(map, p)| map.values[cell] += (p * share) as f32);
        }
    }
    maps
}

fn softmax(scores: &mut [f64]) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|score| *score = exp(*score - largest));
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_resized_between_the_centres_of_its_cells() {
        let map = AttentionMap { values: vec![0.0, 4.0], height_cells: 1, width_cells: 2 };
        let resized = map.resized([2, 4]);
        assert_eq!(resized.values(), [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
        assert_eq!((resized.size(), resized.peak()), ([2, 4], (4.0, [0, 3])));
    }

    #[test]
    fn a_cell_attends_to_the_key_that_it_looks_for() {
        // Two heads of one channel: the first looks for the second token, the second is indifferent.
        let queries = NamedTensor::new("q", &[1, 1, 2, 2], vec![50.0, 0.0, 0.0, 0.0]);
        let keys = NamedTensor::new("k", &[1, 2, 2], vec![0.0, 1.0, 1.0, -1.0]);
        let maps = attended(&queries, &keys, 2, 1.0);
        assert_eq!([maps[0].values(), maps[1].values()], [[0.25, 0.5], [0.75, 0.5]]);
    }
}
