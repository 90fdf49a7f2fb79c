//! The kernels on AVX2, FMA and F16C.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::dequantise::{BLOCK, GROUP};
use super::level::Avx2;
use super::tile::{LANES, ROWS, Tile};

/// [`super::tile::accumulate`]; every row is exactly as long as the panel.
pub fn accumulate(_: Avx2, rows: &[&[f32]; ROWS], panel: &[[f32; LANES]], acc: &mut Tile) {
    assert!(rows.iter().all(|row| row.len() == panel.len()));
    // SAFETY: the witness proves AVX2 and FMA; the assertion above gives the lengths that it needs.
    unsafe { accumulate_unchecked(rows, panel, acc) }
}

/// # Safety
/// AVX2 and FMA are present and each row has the panel's length.
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate_unchecked(rows: &[&[f32]; ROWS], panel: &[[f32; LANES]], acc: &mut Tile) {
    // SAFETY: a tile's row is 16 floats, two registers.
    let mut sums: [[__m256; 2]; ROWS] = unsafe {
        std::array::from_fn(|r| [_mm256_loadu_ps(acc[r].as_ptr()), _mm256_loadu_ps(acc[r].as_ptr().add(8))])
    };
    for (k, weights) in panel.iter().enumerate() {
        // SAFETY: a panel's row is 16 floats, two registers.
        let (low, high) =
            unsafe { (_mm256_loadu_ps(weights.as_ptr()), _mm256_loadu_ps(weights.as_ptr().add(8))) };
        for r in 0..ROWS {
            // SAFETY: k < panel.len(), which is the length of every row.
            let x = unsafe { _mm256_broadcast_ss(rows[r].get_unchecked(k)) };
            sums[r][0] = _mm256_fmadd_ps(x, low, sums[r][0]);
            sums[r][1] = _mm256_fmadd_ps(x, high, sums[r][1]);
        }
    }
    for r in 0..ROWS {
        // SAFETY: a tile's row is 16 floats, two registers.
        unsafe {
            _mm256_storeu_ps(acc[r].as_mut_ptr(), sums[r][0]);
            _mm256_storeu_ps(acc[r].as_mut_ptr().add(8), sums[r][1]);
        }
    }
}

/// One group of 8 output channels x 4 inputs -> four half rows of a panel.
pub fn int8_group(
    _: Avx2,
    group: &[i8; BLOCK * GROUP],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [[f32; LANES]],
) {
    assert!(rows.len() == GROUP && lane + BLOCK <= LANES);
    // SAFETY: the witness proves AVX2; the assertion bounds every store.
    unsafe { int8_group_unchecked(group, scale, lane, rows) }
}

/// # Safety
/// AVX2 is present, `rows` has 4 rows and `lane` is at most 8.
#[target_feature(enable = "avx2")]
unsafe fn int8_group_unchecked(
    group: &[i8; BLOCK * GROUP],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [[f32; LANES]],
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
