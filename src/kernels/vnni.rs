//! Dot products of 16-bit integers in vectors of 256 bits.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::accumulate_pairs;
use super::dequantise::GROUP;
use super::integer::Scales;
use super::level::Vnni;
use super::panel::Group;
use super::tile::{LANES, ROWS, Tile};

accumulate_pairs!(i16_accumulate_unchecked, "avx2,fma,avxvnni", |sum, weights, inputs| {
    _mm256_dpwssd_avx_epi32(sum, weights, inputs)
});

/// [`super::integer::Integer::accumulate`].
pub fn i16_accumulate(_: Vnni, rows: &[&[i16]; ROWS], panel: &[Group<i16>], scales: Scales, acc: &mut Tile) {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()));
    // SAFETY: the witness proves AVX2, FMA and AVX-VNNI; the assertion above gives the lengths.
    unsafe { i16_accumulate_unchecked(rows, panel, scales, acc) }
}
