//! Decoding in overlapping tiles, each by itself, blended where they overlap: the cheap way, with its seams.
//!
//! Every tile has its own normalisation and attention, so neighbours differ in brightness and colour, and the blend turns
//! steps into slopes. Stripes ([`crate::engine::Tile::Auto`]) do not have that fault; this is for machines on which even
//! they are too much.

use crate::engine::{EngineError, NamedTensor};
use crate::tensor::Latents;

/// The share of a tile that overlaps with its neighbour.
const OVERLAP: f64 = 0.25;

/// A decoded map: `[channels, height, width]`, summed up with weights until it is divided by them.
pub struct Canvas {
    values: Vec<f32>,
    weights: Vec<f32>,
    channels: usize,
    height: usize,
    width: usize,
}

/// Decodes `latents` in tiles of `cells` by `cells`, or less at the edges; `decode` decodes one of them to
/// `[1, channels, height, width]`.
///
/// # Errors
/// What `decode` fails with.
pub fn decode(
    latents: &Latents,
    cells: usize,
    mut decode: impl FnMut(NamedTensor) -> Result<NamedTensor, EngineError>,
) -> Result<NamedTensor, EngineError> {
    let [_, _, height, width] = latents.shape();
    let mut canvas: Option<Canvas> = None;
    for (y, tile_height) in tiles(height, cells) {
        for (x, tile_width) in tiles(width, cells) {
            let tile = decode(cut(latents, [y, x], [tile_height, tile_width]))?;
            let scale = tile.shape[2] / tile_height;
            let canvas =
                canvas.get_or_insert_with(|| Canvas::new(tile.shape[1], height * scale, width * scale));
            let ramp = ((cells as f64 * OVERLAP) as usize).max(1) * scale;
            canvas.add(&tile, [y * scale, x * scale], ramp);
        }
    }
    Ok(canvas.expect("latents have cells").finish())
}

/// Where tiles start and how long they are, so that each overlaps with the next.
fn tiles(len: usize, cells: usize) -> Vec<(usize, usize)> {
    let cells = cells.clamp(1, len);
    let step = (cells - (cells as f64 * OVERLAP) as usize).max(1);
    let starts = (0..).map(|at| at * step).take_while(|start| start + cells < len);
    starts.chain([len - cells]).map(|start| (start, cells)).collect()
}

fn cut(latents: &Latents, [y, x]: [usize; 2], [height, width]: [usize; 2]) -> NamedTensor {
    let [_, channels, rows, columns] = latents.shape();
    let row = |c: usize, row: usize| &latents.values()[(c * rows + y + row) * columns + x..][..width];
    let values = (0..channels).flat_map(|c| (0..height).flat_map(move |r| row(c, r).iter().copied()));
    NamedTensor::new("latent_sample", &[1, channels, height, width], values.collect())
}

impl Canvas {
    fn new(channels: usize, height: usize, width: usize) -> Self {
        let (values, weights) = (vec![0.0; channels * height * width], vec![0.0; height * width]);
        Self { values, weights, channels, height, width }
    }

    /// Adds a tile whose weight falls towards those of its edges that lie inside of the picture.
    fn add(&mut self, tile: &NamedTensor, [top, left]: [usize; 2], ramp: usize) {
        let (rows, columns) = (tile.shape[2], tile.shape[3]);
        let down = slopes(top, rows, self.height, ramp);
        let across = slopes(left, columns, self.width, ramp);
        for (row, &vertical) in down.iter().enumerate() {
            let start = (top + row) * self.width + left;
            for (weight, horizontal) in self.weights[start..start + columns].iter_mut().zip(&across) {
                *weight += vertical * horizontal;
            }
            for c in 0..self.channels {
                let from = &tile.values[(c * rows + row) * columns..][..columns];
                let to = &mut self.values[c * self.height * self.width + start..][..columns];
                for ((to, from), horizontal) in to.iter_mut().zip(from).zip(&across) {
                    *to += from * vertical * horizontal;
                }
            }
        }
    }

    fn finish(mut self) -> NamedTensor {
        for plane in self.values.chunks_exact_mut(self.height * self.width) {
            plane.iter_mut().zip(&self.weights).for_each(|(value, weight)| *value /= weight);
        }
        NamedTensor::new("sample", &[1, self.channels, self.height, self.width], self.values)
    }
}

/// Weights along a tile from `start` on, `len` long, in a picture of `total`.
fn slopes(start: usize, len: usize, total: usize, ramp: usize) -> Vec<f32> {
    let rise = |distance: usize| ((distance as f32 + 0.5) / ramp as f32).min(1.0);
    let weight = |at: usize| {
        let before = if start == 0 { 1.0 } else { rise(at) };
        let behind = if start + len == total { 1.0 } else { rise(len - 1 - at) };
        before * behind
    };
    (0..len).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_length_and_overlap() {
        assert_eq!(tiles(16, 32), [(0, 16)]);
        assert_eq!(tiles(16, 16), [(0, 16)]);
        assert_eq!(tiles(20, 8), [(0, 8), (6, 8), (12, 8)]);
        assert_eq!(tiles(21, 8), [(0, 8), (6, 8), (12, 8), (13, 8)]);
        assert_eq!(tiles(3, 1), [(0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn tiles_that_agree_blend_to_the_picture() {
        let values: Vec<f32> = (0..2 * 11 * 13).map(|i| (i as f32 * 0.1).sin()).collect();
        let latents = Latents::new(values.clone(), 2, 11, 13).unwrap();
        // A decoder without any context: every tile is right by itself.
        let mut count = 0;
        let decoded = decode(&latents, 4, |tile| {
            count += 1;
            assert_eq!(tile.shape, [1, 2, 4, 4]);
            Ok(tile)
        });
        let decoded = decoded.unwrap();
        assert_eq!((count, &decoded.shape[..]), (16, &[1, 2, 11, 13][..]));
        let off = decoded.values.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{off}");
    }
}
