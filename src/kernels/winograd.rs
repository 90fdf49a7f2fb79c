//! Winograd's F(4x4, 3x3): a 3x3 convolution by a quarter of the multiplications.
//!
//! ```text
//! input    V = B^T d B       6x6 pixels  -> 36 numbers          d: what a tile of 4x4 outputs reads
//! weights  U = G g G^T       3x3 taps    -> 36 numbers
//!          M = U V           36 products over the channels, one for each place
//! output   Y = A^T M A       36 numbers  -> 4x4 outputs
//! ```
//! The points of interpolation are 0, 1, -1, 2, -2 and infinity (Lavin and Gray, "Fast Algorithms for Convolutional
//! Neural Networks", 2016). Sums are taken over wider ranges of numbers than in a direct convolution, which costs about one
//! decimal digit.

use super::lanes::{LEN, Lanes, LanesWork, Vector};
use super::level::Level;
use super::tile::{LANES, Line};

/// Outputs of a tile along one side.
pub const OUTPUTS: usize = 4;
/// Inputs that a tile reads along one side.
pub const INPUTS: usize = 6;
/// Taps along one side.
pub const TAPS: usize = 3;
/// Numbers that a tile is turned into, for each channel.
pub const PLACES: usize = INPUTS * INPUTS;
/// Channels that are worked on at a time.
pub const STEP: usize = LEN;

/// A tile of the input: `turned` is `[36][stride]`, of which the channels are written; `pixels` are `[6][6]`, row by row,
/// of equally many channels.
///
/// # Panics
/// If the channels are not a multiple of [`STEP`] or not the same for all pixels, or the stride is not one or too short.
pub fn input(level: Level, pixels: &[&[f32]; PLACES], turned: &mut [f32], stride: usize) {
    let channels = pixels[0].len();
    assert!(channels.is_multiple_of(STEP) && stride.is_multiple_of(STEP) && channels <= stride);
    let pixels = pixels.map(|pixel| &pixel[..channels]);
    level.run_lanes(TurnInput { pixels, turned, stride });
}

struct TurnInput<'a> {
    pixels: [&'a [f32]; PLACES],
    turned: &'a mut [f32],
    stride: usize,
}

impl LanesWork for TurnInput<'_> {
    fn divides_by(&self, len: usize) -> bool {
        self.pixels[0].len().is_multiple_of(len) && self.stride.is_multiple_of(len)
    }

    #[inline(always)]
    fn run<const N: usize, L: Lanes<N>>(self, proof: L::Proof) {
        let pixels = self.pixels.map(|pixel| pixel.as_chunks::<N>().0);
        let (turned, stride) = (self.turned.as_chunks_mut::<N>().0, self.stride / N);
        let mut columns = [[0.0; N]; PLACES];
        for step in 0..pixels[0].len() {
            for x in 0..INPUTS {
                let points =
                    input_points(std::array::from_fn(|y| L::load(proof, &pixels[y * INPUTS + x][step])));
                for (y, point) in points.into_iter().enumerate() {
                    point.store(&mut columns[y * INPUTS + x]);
                }
            }
            for (y, row) in columns.as_chunks::<INPUTS>().0.iter().enumerate() {
                let points = input_points(std::array::from_fn(|x| L::load(proof, &row[x])));
                for (x, point) in points.into_iter().enumerate() {
                    point.store(&mut turned[(y * INPUTS + x) * stride + step]);
                }
            }
        }
    }
}

/// Weights: `turned` is `[36][stride]`, of which the inputs are written; `taps` are `[3][3]`, row by row, of equally many
/// inputs.
///
/// # Panics
/// If the taps are not equally long, or longer than the stride.
pub fn weights(level: Level, taps: &[&[Line]; TAPS * TAPS], turned: &mut [Line], stride: usize) {
    let inputs = taps[0].len();
    assert!(inputs <= stride);
    let taps = taps.map(|tap| &tap[..inputs]);
    level.run_lanes(TurnWeights { taps, turned, inputs, stride });
}

struct TurnWeights<'a> {
    taps: [&'a [Line]; TAPS * TAPS],
    turned: &'a mut [Line],
    inputs: usize,
    stride: usize,
}

impl LanesWork for TurnWeights<'_> {
    fn divides_by(&self, len: usize) -> bool {
        LANES.is_multiple_of(len)
    }

    #[inline(always)]
    fn run<const N: usize, L: Lanes<N>>(self, proof: L::Proof) {
        let Self { taps, turned, inputs, stride } = self;
        for k in 0..inputs {
            for part in 0..LANES / N {
                let [a, b, c] = [
                    weight_column::<N, L>(proof, &taps, 0, k, part),
                    weight_column::<N, L>(proof, &taps, 1, k, part),
                    weight_column::<N, L>(proof, &taps, 2, k, part),
                ];
                for y in 0..INPUTS {
                    let row = weight_points([a[y], b[y], c[y]]);
                    for x in 0..INPUTS {
                        row[x].store(part_of_mut::<N>(&mut turned[(y * INPUTS + x) * stride + k], part));
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn weight_column<const N: usize, L: Lanes<N>>(
    proof: L::Proof,
    taps: &[&[Line]; TAPS * TAPS],
    x: usize,
    k: usize,
    part: usize,
) -> [L; INPUTS] {
    let at = |y: usize| L::load(proof, part_of::<N>(&taps[y * TAPS + x][k], part));
    weight_points([at(0), at(1), at(2)])
}

/// Sums of a tile to its outputs, `[4][4]`, row by row; `sums` are `[36][stride]`, of which the first of each is read.
///
/// # Panics
/// If there are less than 36 sums.
pub fn output(
    level: Level,
    sums: &[Line],
    stride: usize,
    bias: &Line,
    outputs: &mut [Line; OUTPUTS * OUTPUTS],
) {
    let sums = &sums[..(PLACES - 1) * stride + 1];
    level.run_lanes(TurnSums { sums, stride, bias, outputs });
}

struct TurnSums<'a> {
    sums: &'a [Line],
    stride: usize,
    bias: &'a Line,
    outputs: &'a mut [Line; OUTPUTS * OUTPUTS],
}

impl LanesWork for TurnSums<'_> {
    fn divides_by(&self, len: usize) -> bool {
        LANES.is_multiple_of(len)
    }

    #[inline(always)]
    fn run<const N: usize, L: Lanes<N>>(self, proof: L::Proof) {
        let Self { sums, stride, bias, outputs } = self;
        for part in 0..LANES / N {
            let [a, b, c, d, e, f] = [
                sum_column::<N, L>(proof, sums, stride, 0, part),
                sum_column::<N, L>(proof, sums, stride, 1, part),
                sum_column::<N, L>(proof, sums, stride, 2, part),
                sum_column::<N, L>(proof, sums, stride, 3, part),
                sum_column::<N, L>(proof, sums, stride, 4, part),
                sum_column::<N, L>(proof, sums, stride, 5, part),
            ];
            let bias = L::load(proof, part_of::<N>(bias, part));
            for y in 0..OUTPUTS {
                let row = output_points([a[y], b[y], c[y], d[y], e[y], f[y]]);
                for x in 0..OUTPUTS {
                    (row[x] + bias).store(part_of_mut::<N>(&mut outputs[y * OUTPUTS + x], part));
                }
            }
        }
    }
}

#[inline(always)]
fn sum_column<const N: usize, L: Lanes<N>>(
    proof: L::Proof,
    sums: &[Line],
    stride: usize,
    x: usize,
    part: usize,
) -> [L; OUTPUTS] {
    let at = |y: usize| L::load(proof, part_of::<N>(&sums[(y * INPUTS + x) * stride], part));
    output_points([at(0), at(1), at(2), at(3), at(4), at(5)])
}

#[inline(always)]
fn part_of<const N: usize>(line: &Line, part: usize) -> &[f32; N] {
    &line.as_chunks().0[part]
}

#[inline(always)]
fn part_of_mut<const N: usize>(line: &mut Line, part: usize) -> &mut [f32; N] {
    &mut line.as_chunks_mut().0[part]
}

/// `B^T d`, of one column or row.
#[inline(always)]
fn input_points<L: Vector>(d: [L; INPUTS]) -> [L; INPUTS] {
    let (even, odd) = (d[2].mul_add(-4.0, d[4]), d[1].mul_add(-4.0, d[3]));
    let (even2, odd2) = (d[4] - d[2], d[3] - d[1]);
    [
        d[0].mul_add(4.0, d[2].mul_add(-5.0, d[4])),
        even + odd,
        even - odd,
        odd2.mul_add(2.0, even2),
        odd2.mul_add(-2.0, even2),
        d[1].mul_add(4.0, d[3].mul_add(-5.0, d[5])),
    ]
}

/// `G g`, of one column or row.
#[inline(always)]
fn weight_points<L: Vector>(g: [L; TAPS]) -> [L; INPUTS] {
    let even = (g[0] + g[2]) * (-1.0 / 6.0);
    let even2 = g[0].mul_add(1.0 / 24.0, g[2] * (1.0 / 6.0));
    [
        g[0] * 0.25,
        g[1].mul_add(-1.0 / 6.0, even),
        g[1].mul_add(1.0 / 6.0, even),
        g[1].mul_add(1.0 / 12.0, even2),
        g[1].mul_add(-1.0 / 12.0, even2),
        g[2],
    ]
}

/// `A^T m`, of one column or row.
#[inline(always)]
fn output_points<L: Vector>(m: [L; INPUTS]) -> [L; OUTPUTS] {
    let (even, odd) = (m[1] + m[2], m[1] - m[2]);
    let (even2, odd2) = (m[3] + m[4], m[3] - m[4]);
    [m[0] + even + even2, odd2.mul_add(2.0, odd), even2.mul_add(4.0, even), odd2.mul_add(8.0, odd) + m[5]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: usize = 2 * STEP;

    fn number(at: usize) -> f32 {
        ((at * 7919 % 1009) as f32 / 504.5) - 1.0
    }

    /// 4x4 outputs of 16 channels, of one tile, by the three transformations.
    /// With so many numbers between two places of the inputs: some levels take more together where these divide by it.
    fn tile(
        level: Level,
        stride: usize,
        pixels: &[Vec<f32>],
        taps: &[Vec<Line>],
        bias: &Line,
    ) -> [Line; OUTPUTS * OUTPUTS] {
        let gap = CHANNELS + 1;
        let (mut v, mut u) = (vec![f32::NAN; PLACES * stride], vec![Line::ZERO; PLACES * gap]);
        input(level, &std::array::from_fn(|at| &pixels[at][..]), &mut v, stride);
        weights(level, &std::array::from_fn(|at| &taps[at][..]), &mut u, gap);
        let mut sums = vec![Line::ZERO; PLACES * 2];
        for place in 0..PLACES {
            for c in 0..CHANNELS {
                let panel = &u[place * gap + c];
                let sums = sums[place * 2].iter_mut().zip(&panel.0);
                sums.for_each(|(sum, u)| *sum += v[place * stride + c] * u);
            }
        }
        let mut outputs = [Line::ZERO; OUTPUTS * OUTPUTS];
        output(level, &sums, 2, bias, &mut outputs);
        outputs
    }

    #[test]
    fn a_tile_is_what_every_tap_multiplied_gives() {
        let pixels: Vec<Vec<f32>> =
            (0..PLACES).map(|at| (0..CHANNELS).map(|c| number(at * 31 + c)).collect()).collect();
        let line = |at: usize| Line(std::array::from_fn(|o| number(at * 17 + o)));
        let taps: Vec<Vec<Line>> = (0..TAPS * TAPS)
            .map(|tap| (0..CHANNELS).map(|c| line(1000 + tap * CHANNELS + c)).collect())
            .collect();
        let bias = line(5);
        let got = tile(Level::Scalar, CHANNELS, &pixels, &taps, &bias);
        for level in Level::available() {
            for stride in [CHANNELS, CHANNELS + STEP] {
                let wider = tile(level, stride, &pixels, &taps, &bias);
                assert_eq!(got, wider, "{level:?}: wider vectors change no bit");
            }
        }
        for (at, got) in got.iter().enumerate() {
            for (o, got) in got.iter().enumerate() {
                let (mut expected, mut size) = (f64::from(bias[o]), 0.0);
                for (tap, weights) in taps.iter().enumerate() {
                    let [y, x] = [at / OUTPUTS + tap / TAPS, at % OUTPUTS + tap % TAPS];
                    for (&x, w) in pixels[y * INPUTS + x].iter().zip(weights) {
                        expected += f64::from(x) * f64::from(w[o]);
                        size += (f64::from(x) * f64::from(w[o])).abs();
                    }
                }
                // A decimal digit less than rounding every product would cost.
                assert!(
                    (f64::from(*got) - expected).abs() < 4e-6 * size,
                    "output {at}, channel {o}: {got} {expected}"
                );
            }
        }
    }
}
