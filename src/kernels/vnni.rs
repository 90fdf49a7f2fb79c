//! Dot products of 16-bit integers on x86, in their two encodings.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::avx2::multiply_pairs;
use super::dequantise::GROUP;
use super::integer::Sums;
use super::level::Vnni;
use super::panel::Group;
use super::tile::{LANES, ROWS};

multiply_pairs!(by_avx, "avx2,avxvnni", |sum, weights, inputs| {
    _mm256_dpwssd_avx_epi32(sum, weights, inputs)
});
multiply_pairs!(by_avx512, "avx2,avx512vnni,avx512vl", |sum, weights, inputs| {
    _mm256_dpwssd_epi32(sum, weights, inputs)
});

/// [`super::integer::Integer::multiply`].
pub fn i16_multiply(witness: Vnni, rows: &[&[i16]; ROWS], panel: &[Group<i16>]) -> Sums {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()));
    // SAFETY: the witness proves the features of its encoding; the assertion above gives the lengths.
    unsafe {
        match witness {
            Vnni::Avx(_) => by_avx(rows, panel),
            Vnni::Avx512(_) => by_avx512(rows, panel),
        }
    }
}
