//! The kernels on AVX2, FMA and F16C.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

use half::f16;

use super::dequantise::{BLOCK, GROUP};
use super::integer::Scales;
use super::lanes::{LEN, Lanes, LanesWork, Vector};
use super::level::{Avx2, Work};
use super::panel::{Group, Stored, StoredGroup};
use super::tile::{LANES, Line, ROWS, Tile};

/// [`super::Level::run`].
#[inline]
pub fn run<W: Work>(_: Avx2, work: W) -> W::Output {
    // SAFETY: the witness proves what the function is compiled for.
    unsafe { run_unchecked(work) }
}

/// # Safety
/// AVX2, FMA and F16C are present.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_unchecked<W: Work>(work: W) -> W::Output {
    work.run()
}

/// [`super::Level::run_lanes`].
#[inline]
pub fn run_lanes(witness: Avx2, work: impl LanesWork) {
    // SAFETY: the witness proves what the function is compiled for.
    unsafe { run_lanes_unchecked(witness, work) }
}

/// # Safety
/// AVX2, FMA and F16C are present.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_lanes_unchecked(witness: Avx2, work: impl LanesWork) {
    work.run::<LEN, F32x8>(witness);
}

/// Eight numbers in a register; there is none without AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct F32x8(__m256);

impl Lanes<LEN> for F32x8 {
    type Proof = Avx2;

    #[inline(always)]
    fn load(_: Avx2, from: &[f32; LEN]) -> Self {
        // SAFETY: the witness proves AVX2, and there are eight floats.
        Self(unsafe { _mm256_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LEN]) {
        // SAFETY: `self` proves AVX2, and there are eight floats.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self.0) }
    }
}

impl Vector for F32x8 {
    #[inline(always)]
    fn mul_add(self, factor: f32, summand: Self) -> Self {
        // SAFETY: `self` proves FMA.
        Self(unsafe { _mm256_fmadd_ps(self.0, _mm256_set1_ps(factor), summand.0) })
    }
}

impl Add for F32x8 {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
}

impl Sub for F32x8 {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
}

impl Mul<f32> for F32x8 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_mul_ps(self.0, _mm256_set1_ps(factor)) })
    }
}

/// [`super::tile::accumulate`] for one tile.
pub fn accumulate(_: Avx2, rows: &[&[f32]; ROWS], panel: &[Line], acc: &mut Tile) {
    assert!(rows.iter().all(|row| row.len() >= panel.len()));
    // SAFETY: the witness proves AVX2 and FMA; the assertion above gives the lengths that it needs.
    unsafe { accumulate_unchecked(rows, panel, acc) }
}

/// # Safety
/// AVX2 and FMA are present and no row is shorter than the panel.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_unchecked(rows: &[&[f32]; ROWS], panel: &[Line], acc: &mut Tile) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for r in 0..ROWS {
        // SAFETY: a tile's row is 16 floats, two registers.
        sums[r] = unsafe { [_mm256_loadu_ps(acc[r].as_ptr()), _mm256_loadu_ps(acc[r].as_ptr().add(8))] };
    }
    // Four at a time, so that it matters little where the loop begins.
    let (fours, rest) = panel.as_chunks::<4>();
    for (at, four) in fours.iter().enumerate() {
        for (k, weights) in four.iter().enumerate() {
            // SAFETY: this is below panel.len(), and no row is shorter.
            unsafe { multiply(&mut sums, rows, 4 * at + k, weights) }
        }
    }
    for (k, weights) in (4 * fours.len()..).zip(rest) {
        // SAFETY: as above.
        unsafe { multiply(&mut sums, rows, k, weights) }
    }
    for r in 0..ROWS {
        // SAFETY: a tile's row is 16 floats, two registers.
        unsafe {
            _mm256_storeu_ps(acc[r].as_mut_ptr(), sums[r][0]);
            _mm256_storeu_ps(acc[r].as_mut_ptr().add(8), sums[r][1]);
        }
    }
}

/// Adds the products of input `k` of every row with its weights.
///
/// # Safety
/// AVX2 and FMA are present, and every row has such an input.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply(sums: &mut [[__m256; 2]; ROWS], rows: &[&[f32]; ROWS], k: usize, weights: &Line) {
    // SAFETY: a panel's row is 16 floats, two registers.
    let (low, high) =
        unsafe { (_mm256_loadu_ps(weights.as_ptr()), _mm256_loadu_ps(weights.as_ptr().add(8))) };
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        let x = unsafe { _mm256_broadcast_ss(rows[r].get_unchecked(k)) };
        sums[r][0] = _mm256_fmadd_ps(x, low, sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(x, high, sums[r][1]);
    }
}

/// Some groups of `int8` (see [`super::dequantise::int8`]), 8 output channels x 4 inputs each, with one scale for each channel.
pub fn int8_groups(
    _: Avx2,
    groups: &[[i8; BLOCK * GROUP]],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [Line],
) {
    assert!(rows.len() == GROUP * groups.len() && lane + BLOCK <= LANES);
    // SAFETY: the witness proves AVX2; the assertion bounds every store.
    unsafe { int8_groups_unchecked(groups, scale, lane, rows) }
}

/// # Safety
/// AVX2 is present, and `lane` is at most 8.
#[target_feature(enable = "avx2")]
unsafe fn int8_groups_unchecked(
    groups: &[[i8; BLOCK * GROUP]],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [Line],
) {
    for (group, rows) in groups.iter().zip(rows.as_chunks_mut().0) {
        // SAFETY: the caller's promise.
        unsafe { int8_group(group, scale, lane, rows) }
    }
}

/// # Safety
/// AVX2 is present, and `lane` is at most 8.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn int8_group(
    group: &[i8; BLOCK * GROUP],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [Line; GROUP],
) {
    // Within each half (4 channels x 4 inputs) the bytes are turned to 4 inputs x 4 channels, then the two
    // halves of an input are brought side by side.
    let turn = _mm256_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, //
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
    );
    let pair = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    // SAFETY: a group is 32 bytes, the scales are 8 floats.
    let (bytes, scale) =
        unsafe { (_mm256_loadu_si256(group.as_ptr().cast()), _mm256_loadu_ps(scale.as_ptr())) };
    let turned = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(bytes, turn), pair);
    let (low, high) = (_mm256_castsi256_si128(turned), _mm256_extracti128_si256::<1>(turned));
    let inputs = [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)];
    for (row, bytes) in rows.iter_mut().zip(inputs) {
        let real = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), scale);
        // SAFETY: lane + 8 <= 16, the length of a row.
        unsafe { _mm256_storeu_ps(row.as_mut_ptr().add(lane), real) };
    }
}

/// One group of `float16` (see [`super::dequantise::float16`]): 8 output channels x 4 inputs.
pub fn float16_group(_: Avx2, group: &[f16; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    assert!(rows.len() == GROUP && lane + BLOCK <= LANES);
    // SAFETY: the witness proves AVX2 and F16C; the assertion bounds every store.
    unsafe { float16_group_unchecked(group, lane, rows) }
}

/// # Safety
/// As [`float16_group`] asserts.
#[target_feature(enable = "avx2,f16c")]
unsafe fn float16_group_unchecked(group: &[f16; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    // SAFETY: a group is 32 halves, four times eight of them.
    let pairs = std::array::from_fn(|at| unsafe {
        _mm256_cvtph_ps(_mm_loadu_si128(group.as_ptr().add(8 * at).cast()))
    });
    // SAFETY: the caller's promise.
    unsafe { store_turned(pairs, lane, rows) }
}

/// One group of `float32` (see [`super::dequantise::float32`]): 8 output channels x 4 inputs.
pub fn float32_group(_: Avx2, group: &[f32; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    assert!(rows.len() == GROUP && lane + BLOCK <= LANES);
    // SAFETY: the witness proves AVX2; the assertion bounds every store.
    unsafe { float32_group_unchecked(group, lane, rows) }
}

/// # Safety
/// As [`float32_group`] asserts.
#[target_feature(enable = "avx2")]
unsafe fn float32_group_unchecked(group: &[f32; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    // SAFETY: a group is 32 floats, four times eight of them.
    let pairs = std::array::from_fn(|at| unsafe { _mm256_loadu_ps(group.as_ptr().add(8 * at)) });
    // SAFETY: the caller's promise.
    unsafe { store_turned(pairs, lane, rows) }
}

/// Stores four inputs of eight channels each, given two channels of four inputs in each register.
///
/// # Safety
/// `rows` has [`GROUP`] rows, and `lane + 8` is at most [`LANES`].
#[target_feature(enable = "avx2")]
unsafe fn store_turned([a, b, c, d]: [__m256; 4], lane: usize, rows: &mut [Line]) {
    // Channels 0 and 4, 1 and 5, 2 and 6, 3 and 7: then each half is a square of its own.
    let [p, q] = [_mm256_permute2f128_ps::<0x20>(a, c), _mm256_permute2f128_ps::<0x31>(a, c)];
    let [r, s] = [_mm256_permute2f128_ps::<0x20>(b, d), _mm256_permute2f128_ps::<0x31>(b, d)];
    let [pq, rs] = [_mm256_unpacklo_ps(p, q), _mm256_unpacklo_ps(r, s)];
    let [pq_high, rs_high] = [_mm256_unpackhi_ps(p, q), _mm256_unpackhi_ps(r, s)];
    let inputs = [
        _mm256_shuffle_ps::<0x44>(pq, rs),
        _mm256_shuffle_ps::<0xee>(pq, rs),
        _mm256_shuffle_ps::<0x44>(pq_high, rs_high),
        _mm256_shuffle_ps::<0xee>(pq_high, rs_high),
    ];
    for (row, values) in rows.iter_mut().zip(inputs) {
        // SAFETY: lane + 8 <= 16, the length of a row.
        unsafe { _mm256_storeu_ps(row.as_mut_ptr().add(lane), values) };
    }
}

/// [`super::integer::Integer::arrange`].
pub fn i16_arrange(_: Avx2, stored: Stored, panel: &mut [Group<i16>]) {
    // SAFETY: the witness proves AVX2.
    unsafe { i16_arrange_unchecked(stored, panel) }
}

/// # Safety
/// AVX2 is present.
#[target_feature(enable = "avx2")]
unsafe fn i16_arrange_unchecked(stored: Stored, panel: &mut [Group<i16>]) {
    for (at, group) in panel.iter_mut().enumerate() {
        let ratios = stored.ratios_of(at);
        for (half, stored) in [stored.low, stored.high].into_iter().enumerate() {
            let stored = stored.get(at).unwrap_or(&[0; BLOCK * GROUP]);
            let ratios = ratios.map(|ratios| &ratios.as_chunks().0[half]);
            // SAFETY: the caller's promise, and a group has two halves.
            unsafe { i16_arrange_half(stored, half, ratios, group) };
        }
    }
}

/// # Safety
/// AVX2 is present, and `half` is 0 or 1.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn i16_arrange_half(
    stored: &StoredGroup,
    half: usize,
    ratios: Option<&[i16; BLOCK]>,
    group: &mut Group<i16>,
) {
    // SAFETY: a stored group is twice 16 bytes.
    let [a, b] =
        unsafe { [0, 16].map(|at| _mm256_cvtepi8_epi16(_mm_loadu_si128(stored.as_ptr().add(at).cast()))) };
    // In both, each channel has its first and its second pair of inputs side by side.
    let [a, b] = [_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)];
    let pairs = [_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b)];
    for (pair, channels) in pairs.into_iter().enumerate() {
        let mut in_order = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(channels));
        if let Some(ratios) = ratios {
            // SAFETY: there are eight numbers of 16 bits.
            let ratios = unsafe { _mm_loadu_si128(ratios.as_ptr().cast()) };
            // Each twice, as each channel has a pair of inputs.
            let twice = _mm256_or_si256(
                _mm256_cvtepu16_epi32(ratios),
                _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(ratios)),
            );
            in_order = _mm256_mulhrs_epi16(_mm256_slli_epi16::<4>(in_order), twice);
        }
        // SAFETY: the group has 64 numbers, of which these are 16 from at most 48 on.
        unsafe {
            _mm256_storeu_si256(group.0.as_mut_ptr().add(2 * LANES * pair + 16 * half).cast(), in_order);
        }
    }
}

/// Makes `$name`, the product of six rows with a panel by way of an instruction that multiplies pairs of numbers and adds
/// both products to a sum: `$dot(sum, weights, inputs)`. The sums are multiplied by their scales and added to the tile.
macro_rules! accumulate_pairs {
    ($name:ident, $features:literal, $dot:expr) => {
        /// # Safety
        /// The named features are present, and each row has four numbers for each group of the panel.
        #[target_feature(enable = $features)]
        unsafe fn $name(rows: &[&[i16]; ROWS], panel: &[Group<i16>], scales: Scales, acc: &mut Tile) {
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for (at, group) in panel.iter().enumerate() {
                for pair in 0..GROUP / 2 {
                    // SAFETY: a group is twice two registers.
                    let weights = unsafe {
                        [0, 16].map(|half| {
                            _mm256_loadu_si256(group.0.as_ptr().add(2 * LANES * pair + half).cast())
                        })
                    };
                    for r in 0..ROWS {
                        // SAFETY: the caller's promise.
                        let inputs = unsafe {
                            let at = rows[r].as_ptr().add(GROUP * at + 2 * pair).cast::<i32>();
                            _mm256_set1_epi32(at.read_unaligned())
                        };
                        for half in 0..2 {
                            sums[r][half] = $dot(sums[r][half], weights[half], inputs);
                        }
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                let row_scale = _mm256_set1_ps(scales.rows[r]);
                for (half, sum) in sums.into_iter().enumerate() {
                    // SAFETY: a tile's row and the scales of the outputs are 16 floats, two registers.
                    unsafe {
                        let scale = _mm256_loadu_ps(scales.outputs.as_ptr().add(8 * half));
                        let place = acc[r].as_mut_ptr().add(8 * half);
                        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
                        _mm256_storeu_ps(place, _mm256_fmadd_ps(product, row_scale, _mm256_loadu_ps(place)));
                    }
                }
            }
        }
    };
}
pub(super) use accumulate_pairs;

accumulate_pairs!(i16_accumulate_unchecked, "avx2,fma", |sum, weights, inputs| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(weights, inputs))
});

/// [`super::integer::Integer::accumulate`].
pub fn i16_accumulate(_: Avx2, rows: &[&[i16]; ROWS], panel: &[Group<i16>], scales: Scales, acc: &mut Tile) {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()));
    // SAFETY: the witness proves AVX2 and FMA; the assertion above gives the lengths.
    unsafe { i16_accumulate_unchecked(rows, panel, scales, acc) }
}
