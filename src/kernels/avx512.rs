//! The kernels that gain from vectors of 512 bits.
#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over iterators are not all unrolled, and sums are then kept in memory"
)]

use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

use super::avx2::F32x8;
use super::dequantise::GROUP;
use super::integer;
use super::lanes::{self, Lanes, LanesWork, Vector};
use super::level::{Avx512, Work};
use super::panel::Group;
use super::tile::{LANES, Line, ROWS, Rows, Tile};

/// Inputs whose weights are in registers together, so that a row's place is looked up once for all of them.
const AT_ONCE: usize = 4;

/// [`super::Level::run`].
#[inline]
pub fn run<W: Work>(_: Avx512, work: W) -> W::Output {
    // SAFETY: the witness proves what the function is compiled for.
    unsafe { run_unchecked(work) }
}

/// # Safety
/// What [`Avx512`] proves is present.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run_unchecked<W: Work>(work: W) -> W::Output {
    work.run()
}

/// [`super::Level::run_lanes`].
#[inline]
pub fn run_lanes(witness: Avx512, work: impl LanesWork) {
    // SAFETY: the witness proves what the function is compiled for.
    unsafe { run_lanes_unchecked(witness, work) }
}

/// # Safety
/// What [`Avx512`] proves is present.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run_lanes_unchecked(witness: Avx512, work: impl LanesWork) {
    if work.divides_by(LANES) {
        work.run::<LANES, F32x16>(witness);
    } else {
        work.run::<{ lanes::LEN }, F32x8>(witness.avx2());
    }
}

/// Sixteen numbers in a register; there is none without AVX-512.
#[derive(Clone, Copy)]
struct F32x16(__m512);

impl Lanes<LANES> for F32x16 {
    type Proof = Avx512;

    #[inline(always)]
    fn load(_: Avx512, from: &[f32; LANES]) -> Self {
        // SAFETY: the witness proves AVX-512, and there are sixteen floats.
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512, and there are sixteen floats.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }
}

impl Vector for F32x16 {
    #[inline(always)]
    fn mul_add(self, factor: f32, summand: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_fmadd_ps(self.0, _mm512_set1_ps(factor), summand.0) })
    }
}

impl Add for F32x16 {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
}

impl Sub for F32x16 {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
}

impl Mul<f32> for F32x16 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_mul_ps(self.0, _mm512_set1_ps(factor)) })
    }
}

/// A product of some tiles with a panel.
trait Product<T> {
    /// Of tiles that are taken together.
    fn of<const TILES: usize>(&self, tiles: [T; TILES]);

    /// Of all tiles. Two together have enough sums for the time that an addition takes; one that would be left goes with them.
    #[inline(always)]
    fn of_all(&self, mut tiles: impl Iterator<Item = T>) {
        let mut first = tiles.next();
        while let Some(a) = first.take() {
            match [tiles.next(), tiles.next()] {
                [None, _] => self.of([a]),
                [Some(b), None] => self.of([a, b]),
                [Some(b), Some(c)] => match tiles.next() {
                    None => self.of([a, b, c]),
                    Some(d) => {
                        self.of([a, b]);
                        self.of([c, d]);
                        first = tiles.next();
                    }
                },
            }
        }
    }
}

/// [`super::tile::accumulate`].
#[inline]
pub fn accumulate<'a, 't>(
    witness: Avx512,
    panel: &[Line],
    tiles: impl Iterator<Item = (Rows<'a>, &'t mut Tile)>,
) {
    Floats(witness, panel).of_all(tiles);
}

struct Floats<'p>(Avx512, &'p [Line]);

impl Product<(Rows<'_>, &mut Tile)> for Floats<'_> {
    #[inline(always)]
    fn of<const TILES: usize>(&self, tiles: [(Rows, &mut Tile); TILES]) {
        let Self(_, panel) = *self;
        assert!(tiles.iter().flat_map(|(rows, _)| rows).all(|row| row.len() >= panel.len()));
        // SAFETY: the witness proves AVX-512; the assertion gives the lengths that it needs.
        unsafe { accumulate_unchecked(tiles, panel) }
    }
}

/// # Safety
/// What [`Avx512`] proves is present and no row is shorter than the panel.
#[target_feature(enable = "avx512f")]
unsafe fn accumulate_unchecked<const TILES: usize>(tiles: [(Rows, &mut Tile); TILES], panel: &[Line]) {
    // SAFETY: a tile's row is 16 floats, one register.
    let load = |line: &Line| unsafe { _mm512_loadu_ps(line.as_ptr()) };
    let mut sums: [[__m512; ROWS]; TILES] =
        std::array::from_fn(|at| std::array::from_fn(|r| load(&tiles[at].1[r])));
    let (fours, rest) = panel.as_chunks::<AT_ONCE>();
    for (at, four) in fours.iter().enumerate() {
        let weights: [__m512; AT_ONCE] = std::array::from_fn(|k| load(&four[k]));
        for tile in 0..TILES {
            for r in 0..ROWS {
                for k in 0..AT_ONCE {
                    // SAFETY: this is below panel.len(), and no row is shorter.
                    let x = unsafe { *tiles[tile].0[r].get_unchecked(at * AT_ONCE + k) };
                    sums[tile][r] = _mm512_fmadd_ps(_mm512_set1_ps(x), weights[k], sums[tile][r]);
                }
            }
        }
    }
    for (k, weights) in (fours.len() * AT_ONCE..).zip(rest) {
        let weights = load(weights);
        for tile in 0..TILES {
            for r in 0..ROWS {
                // SAFETY: as above.
                let x = unsafe { *tiles[tile].0[r].get_unchecked(k) };
                sums[tile][r] = _mm512_fmadd_ps(_mm512_set1_ps(x), weights, sums[tile][r]);
            }
        }
    }
    for ((_, acc), sums) in tiles.into_iter().zip(sums) {
        for (line, sum) in acc.iter_mut().zip(sums) {
            // SAFETY: a tile's row is 16 floats, one register.
            unsafe { _mm512_storeu_ps(line.as_mut_ptr(), sum) }
        }
    }
}

/// [`super::integer::Integer::accumulate`].
#[inline]
pub fn i16_accumulate<'a, 't>(
    witness: Avx512,
    panel: &[Group<i16>],
    outputs: &Line,
    tiles: impl Iterator<Item = (integer::Rows<'a, i16>, &'t mut Tile)>,
) {
    Integers(witness, panel, outputs).of_all(tiles);
}

struct Integers<'p>(Avx512, &'p [Group<i16>], &'p Line);

impl Product<(integer::Rows<'_, i16>, &mut Tile)> for Integers<'_> {
    #[inline(always)]
    fn of<const TILES: usize>(&self, tiles: [(integer::Rows<i16>, &mut Tile); TILES]) {
        let Self(_, panel, outputs) = *self;
        let len = GROUP * panel.len();
        assert!(tiles.iter().flat_map(|(rows, _)| rows.values).all(|row| row.len() >= len));
        // SAFETY: the witness proves AVX-512; the assertion gives the lengths that it needs.
        unsafe { i16_accumulate_unchecked(tiles, panel, outputs) }
    }
}

/// # Safety
/// What [`Avx512`] proves is present and each row has four numbers for each group of the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn i16_accumulate_unchecked<const TILES: usize>(
    tiles: [(integer::Rows<i16>, &mut Tile); TILES],
    panel: &[Group<i16>],
    outputs: &Line,
) {
    let mut sums = [[_mm512_setzero_si512(); ROWS]; TILES];
    for (at, group) in panel.iter().enumerate() {
        // SAFETY: a group is two registers, each a pair of inputs of every output.
        let weights: [__m512i; GROUP / 2] = std::array::from_fn(|pair| unsafe {
            _mm512_loadu_si512(group.0.as_ptr().add(2 * LANES * pair).cast())
        });
        for tile in 0..TILES {
            for r in 0..ROWS {
                for pair in 0..GROUP / 2 {
                    // SAFETY: the caller's promise.
                    let inputs = unsafe {
                        let row = tiles[tile].0.values[r].as_ptr();
                        _mm512_set1_epi32(row.add(GROUP * at + 2 * pair).cast::<i32>().read_unaligned())
                    };
                    sums[tile][r] = _mm512_dpwssd_epi32(sums[tile][r], weights[pair], inputs);
                }
            }
        }
    }
    // SAFETY: the scales of the outputs are 16 floats, one register.
    let scale = unsafe { _mm512_loadu_ps(outputs.as_ptr()) };
    for ((rows, acc), sums) in tiles.into_iter().zip(sums) {
        for ((line, sum), &row_scale) in acc.iter_mut().zip(sums).zip(&rows.scales) {
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            // SAFETY: a tile's row is 16 floats, one register.
            unsafe {
                let sum = _mm512_loadu_ps(line.as_ptr());
                _mm512_storeu_ps(line.as_mut_ptr(), _mm512_fmadd_ps(product, _mm512_set1_ps(row_scale), sum));
            }
        }
    }
}
