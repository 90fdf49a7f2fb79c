//! Latents -> a small picture, without the decoder.
//!
//! Each channel of a latent space is nearly a mixture of colours, so a matrix turns a cell into the mean colour of its
//! pixels: `rgb = W [latents; 1]`. The matrix is the least-squares fit over one small picture that the model's own
//! decoder makes of noise that is smooth in places.

use std::sync::Arc;

use super::PipelineError;
use crate::bundle::Bundle;
use crate::denoise::noise::TorchGenerator;
use crate::engine::Resources;
use crate::tensor::{Latents, Rgb8};
use crate::vae::VaeDecoder;

/// Cells along a side of the picture that is fitted.
const SIDE_CELLS: usize = 16;
/// Cells along a side of its even parts.
const EVEN_CELLS: usize = 4;
/// The deviation of cells from the even part that they are in.
const UNEVENNESS: f32 = 0.3;

/// The colours of a model's latents.
#[derive(Debug, Clone)]
pub struct LatentRgb {
    /// For red, green and blue: a weight per channel, and what to add.
    weights: [Vec<f64>; 3],
}

impl LatentRgb {
    /// Learns from the decoder of `bundle`.
    ///
    /// # Errors
    /// [`PipelineError`] if it cannot be run.
    pub fn learn(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, PipelineError> {
        let latents = patches(bundle.pipeline().latent_channels)?;
        let picture = VaeDecoder::load(bundle, resources)?.decode(&latents)?;
        let cells: Vec<Vec<f64>> = cells(&latents).collect();
        Ok(Self { weights: [0, 1, 2].map(|colour| fit(&cells, &means(&picture, colour))) })
    }

    /// One pixel for each cell.
    ///
    /// # Errors
    /// [`PipelineError::Latents`] never, in fact: latents have cells.
    pub fn preview(&self, latents: &Latents) -> Result<Rgb8, PipelineError> {
        let mut pixels = Vec::with_capacity(latents.height_cells() * latents.width_cells() * 3);
        for cell in cells(latents) {
            let colour = |weights: &Vec<f64>| weights.iter().zip(&cell).map(|(w, x)| w * x).sum::<f64>();
            pixels.extend(self.weights.each_ref().map(|w| colour(w).round().clamp(0.0, 255.0) as u8));
        }
        Ok(Rgb8::new(pixels, latents.width_cells(), latents.height_cells())?)
    }
}

/// Noise that is nearly even in parts, as pictures are.
fn patches(channels: usize) -> Result<Latents, PipelineError> {
    let (side, coarse) = (SIDE_CELLS, SIDE_CELLS / EVEN_CELLS);
    let mut generator = TorchGenerator::new(0);
    let mut parts = vec![0.0; channels * coarse * coarse];
    generator.fill_normal(&mut parts);
    let mut values = vec![0.0; channels * side * side];
    generator.fill_normal(&mut values);
    for (at, value) in values.iter_mut().enumerate() {
        let (channel, row, column) = (at / (side * side), at / side % side, at % side);
        let part = (channel * coarse + row / EVEN_CELLS) * coarse + column / EVEN_CELLS;
        *value = parts[part] + UNEVENNESS * *value;
    }
    Ok(Latents::new(values, channels, side, side)?)
}

/// The channels of every cell, and a 1.
fn cells(latents: &Latents) -> impl Iterator<Item = Vec<f64>> {
    let count = latents.height_cells() * latents.width_cells();
    let channels = move |at: usize| (0..latents.channels()).map(move |c| latents.values()[c * count + at]);
    (0..count).map(move |at| channels(at).map(f64::from).chain([1.0]).collect())
}

/// The mean of a colour over the pixels of every cell.
fn means(picture: &Rgb8, colour: usize) -> Vec<f64> {
    let scale = picture.width_px() / SIDE_CELLS;
    let pixel = |row: usize, column: usize| {
        f64::from(picture.pixels()[(row * picture.width_px() + column) * 3 + colour])
    };
    let mean = |cell: usize| {
        let (top, left) = (cell / SIDE_CELLS * scale, cell % SIDE_CELLS * scale);
        let sum: f64 = (0..scale * scale).map(|at| pixel(top + at / scale, left + at % scale)).sum();
        sum / (scale * scale) as f64
    };
    (0..SIDE_CELLS * SIDE_CELLS).map(mean).collect()
}

/// The weights whose sum over each row comes closest to `values`: the normal equations, by Gauss-Jordan elimination.
fn fit(rows: &[Vec<f64>], values: &[f64]) -> Vec<f64> {
    let count = rows[0].len();
    let product = |f: &dyn Fn(usize) -> f64| (0..rows.len()).map(f).sum::<f64>();
    let mut system: Vec<Vec<f64>> = (0..count)
        .map(|i| {
            let entry = |j: usize| product(&|at| rows[at][i] * rows[at][j]);
            (0..count).map(entry).chain([product(&|at| rows[at][i] * values[at])]).collect()
        })
        .collect();
    for pivot in 0..count {
        // The matrix is symmetric and positive definite, so pivots are not zero.
        let scaled: Vec<f64> = system[pivot].iter().map(|x| x / system[pivot][pivot]).collect();
        for (row, equation) in system.iter_mut().enumerate() {
            if row == pivot {
                equation.clone_from(&scaled);
            } else {
                let factor = equation[pivot];
                equation.iter_mut().zip(&scaled).for_each(|(x, s)| *x -= factor * s);
            }
        }
    }
    system.into_iter().map(|row| row[count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fit_finds_the_mixture_that_made_the_colours() {
        let latents = patches(4).unwrap();
        let rows: Vec<Vec<f64>> = cells(&latents).collect();
        let mixture = [10.0, -20.0, 3.0, 0.5, 128.0];
        let values: Vec<f64> =
            rows.iter().map(|row| row.iter().zip(mixture).map(|(x, w)| x * w).sum()).collect();
        for (found, made) in fit(&rows, &values).iter().zip(mixture) {
            assert!((found - made).abs() < 1e-9, "{found} is not {made}");
        }
    }

    #[test]
    fn a_preview_has_a_pixel_for_each_cell() {
        let colours = LatentRgb { weights: [vec![100.0, 50.0], vec![0.0, 300.0], vec![0.0, -1.0]] };
        let latents = Latents::new(vec![0.0, 1.0, 2.0], 1, 1, 3).unwrap();
        let preview = colours.preview(&latents).unwrap();
        assert_eq!(preview.pixels(), [50, 255, 0, 150, 255, 0, 250, 255, 0]);
        assert_eq!([preview.width_px(), preview.height_px()], [3, 1]);
    }
}
