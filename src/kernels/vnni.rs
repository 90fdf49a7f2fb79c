//! Dot products of 16-bit integers on x86, in their two encodings.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::accumulate_pairs;
use super::dequantise::GROUP;
use super::integer::Scales;
use super::level::Vnni;
use super::panel::Group;
use super::tile::{LANES, ROWS, Tile};

accumulate_pairs!(by_avx, "avx2,fma,avxvnni", |sum, weights, inputs| {
    _mm256_dpwssd_avx_epi32(sum, weights, inputs)
});
accumulate_pairs!(by_avx512, "avx2,fma,avx512vnni,avx512vl", |sum, weights, inputs| {
    _mm256_dpwssd_epi32(sum, weights, inputs)
});

/// [`super::integer::Integer::accumulate`].
pub fn i16_accumulate(
    witness: Vnni,
    rows: &[&[i16]; ROWS],
    panel: &[Group<i16>],
    scales: Scales,
    acc: &mut Tile,
) {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()));
    // SAFETY: the witness proves the features of its encoding; the assertion above gives the lengths.
    unsafe {
        match witness {
            Vnni::Avx(_) => by_avx(rows, panel, scales, acc),
            Vnni::Avx512(_) => by_avx512(rows, panel, scales, acc),
        }
    }
}
