//! Resizing with a window of source pixels for each pixel of the result, wider where the picture shrinks.
//!
//! ```text
//! columns, then rows: out[x] = sum_i w[i] in[start + i],    w[i] = f((start + i + 1/2 - center) / stretch), made to sum to 1
//! center = (x + 1/2) from / to,   stretch = max(from / to, 1)
//! ```
//! Of a picture in bytes weights have 22 bits behind the point, and what lies between the two passes is 8 bits again, clamped: so the result is
//! Pillow's, byte for byte. Only what is kept of the result is computed. Of planes of floats both passes are of floats, as in torch's
//! `interpolate` with `antialias`.
//!
//! Source: Pillow 13, the behaviour of `Image.resize`; bicubic: Keys 1981, with a = -1/2.

use std::f64::consts::PI;
use std::ops::Range;

use crate::kernels::elementary::sin_cos;
use crate::tensor::Rgb8;

/// Bits of a weight behind the point.
const BITS: u32 = 22;
/// Lobes of Lanczos's window.
const LOBES: f64 = 3.0;

/// The shape of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Keys's cubic, two pixels wide each way.
    Bicubic,
    /// A sinc under a sinc, three pixels wide each way.
    Lanczos,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Lanczos => LOBES,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Lanczos if x < LOBES => sinc(x) * sinc(x / LOBES),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { sin_cos(x * PI).0 / (x * PI) }
}

/// The picture, its proportions kept, in the smallest size that covers `width_px` x `height_px`, and of that the middle.
///
/// # Panics
/// If a side is 0.
pub fn cover(picture: &Rgb8, width_px: usize, height_px: usize, filter: Filter) -> Rgb8 {
    assert!(width_px > 0 && height_px > 0, "a picture has pixels");
    let (width, height) = (picture.width_px(), picture.height_px());
    if (width, height) == (width_px, height_px) {
        return picture.clone();
    }
    let is_taller = width * height_px < width_px * height;
    let full = match is_taller {
        true => [width_px, height * width_px / width],
        false => [width * height_px / height, height_px],
    };
    let middle = |full: usize, kept: usize| (full - kept) / 2..(full - kept) / 2 + kept;
    let columns = taps(width, full[0], middle(full[0], width_px), filter, fixed);
    let rows = taps(height, full[1], middle(full[1], height_px), filter, fixed);
    let first = rows.iter().map(|tap| tap.start).min().unwrap_or(0);
    let last = rows.iter().map(|tap| tap.start + tap.weights.len()).max().unwrap_or(height);
    let narrowed = across(picture, &columns, first..last);
    let pixels = down(&narrowed, &rows, first, width_px * 3);
    Rgb8::new(pixels, width_px, height_px).expect("rows and columns were counted")
}

/// Planes of these sizes, `[channels, height, width]`, brought to others: bicubic, and stretched where the proportions differ.
///
/// # Panics
/// If a side is 0, or the planes are not whole.
pub fn resize(planes: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let [rows, columns] =
        [0, 1].map(|axis| taps(from[axis], to[axis], 0..to[axis], Filter::Bicubic, |w| w as f32));
    assert!(planes.len().is_multiple_of(from[0] * from[1]), "planes are whole");
    let mut out = Vec::with_capacity(planes.len() / (from[0] * from[1]) * to[0] * to[1]);
    for plane in planes.chunks_exact(from[0] * from[1]) {
        let line = |line| columns.iter().map(move |tap: &Tap<f32>| tap.of(line, |at| at));
        let widened: Vec<f32> = plane.chunks_exact(from[1]).flat_map(line).collect();
        let row =
            |tap: &Tap<f32>| (0..to[1]).map(|x| tap.of(&widened, |y| y * to[1] + x)).collect::<Vec<_>>();
        out.extend(rows.iter().flat_map(row));
    }
    out
}

/// The source pixels that one pixel is made of, each with its weight.
struct Tap<W> {
    start: usize,
    weights: Vec<W>,
}

impl Tap<f32> {
    /// The pixel, of those that lie at `place`.
    fn of(&self, pixels: &[f32], place: impl Fn(usize) -> usize) -> f32 {
        self.weights.iter().zip(self.start..).map(|(weight, at)| weight * pixels[place(at)]).sum()
    }
}

/// For each pixel of `kept`, of a line of `from` pixels that becomes one of `to`; weights sum to 1, and become those of the result.
fn taps<W>(
    from: usize,
    to: usize,
    kept: Range<usize>,
    filter: Filter,
    weighed: impl Fn(f64) -> W,
) -> Vec<Tap<W>> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let tap = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |i: usize| filter.at((i as f64 - center + 0.5) / stretch);
        let sum: f64 = (start..end).map(weight).sum();
        Tap { start, weights: (start..end).map(|i| weighed(weight(i) / sum)).collect() }
    };
    kept.map(tap).collect()
}

/// These rows of the picture, resized along them.
fn across(picture: &Rgb8, columns: &[Tap<i64>], rows: Range<usize>) -> Vec<u8> {
    let lines = picture.pixels().chunks_exact(picture.width_px() * 3);
    let mut out = Vec::with_capacity(rows.len() * columns.len() * 3);
    for line in lines.skip(rows.start).take(rows.len()) {
        for tap in columns {
            let source = line[tap.start * 3..].chunks_exact(3);
            let mut sums = [0; 3];
            for (pixel, &weight) in source.zip(&tap.weights) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &byte)| *sum += weight * i64::from(byte));
            }
            out.extend(sums.map(to_byte));
        }
    }
    out
}

/// Rows of `len` bytes, the first of which is row `first` of the picture, resized across them.
fn down(lines: &[u8], rows: &[Tap<i64>], first: usize, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * len);
    let mut sums = vec![0; len];
    for tap in rows {
        sums.fill(0);
        let source = lines[(tap.start - first) * len..].chunks_exact(len);
        for (line, &weight) in source.zip(&tap.weights) {
            sums.iter_mut().zip(line).for_each(|(sum, &byte)| *sum += weight * i64::from(byte));
        }
        out.extend(sums.iter().copied().map(to_byte));
    }
    out
}

fn fixed(weight: f64) -> i64 {
    (weight * f64::from(1 << BITS)).round() as i64
}

fn to_byte(sum: i64) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_picture_stays_even_and_its_middle_is_kept() {
        let even = Rgb8::new([7, 100, 250].repeat(6 * 4), 6, 4).unwrap();
        for filter in [Filter::Bicubic, Filter::Lanczos] {
            for (width, height) in [(3, 9), (16, 16), (1, 1), (5, 2)] {
                let resized = cover(&even, width, height, filter);
                assert_eq!(resized.pixels(), [7, 100, 250].repeat(width * height), "{width} x {height}");
            }
        }
        let halves: Vec<u8> = (0..12 * 2).flat_map(|at| [if at % 12 < 6 { 0 } else { 255 }; 3]).collect();
        let middle = cover(&Rgb8::new(halves, 12, 2).unwrap(), 2, 2, Filter::Lanczos);
        assert_eq!(middle.pixels(), [[0; 3], [255; 3], [0; 3], [255; 3]].concat());
    }

    #[test]
    fn a_line_of_pixels_can_be_made_a_square() {
        let line = Rgb8::new(vec![9; 16384 * 3], 16384, 1).unwrap();
        assert_eq!(cover(&line, 64, 64, Filter::Lanczos).pixels(), [9; 64 * 64 * 3]);
    }
}
