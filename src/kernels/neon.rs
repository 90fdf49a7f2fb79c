//! The kernels on NEON, which every 64-bit ARM has.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::{Add, Mul, Sub};

use half::f16;

use super::dequantise::{BLOCK, GROUP};
use super::integer::Sums;
use super::lanes::{LEN, Lanes, LanesWork, Vector};
use super::level::{Neon, Work};
use super::panel::Group;
use super::tile::{LANES, Line, ROWS, Tile};

/// Registers in a tile's row.
const PARTS: usize = LANES / 4;

/// [`super::Level::run`]. NEON is part of the baseline, so there is nothing to compile anew.
#[inline]
pub fn run<W: Work>(_: Neon, work: W) -> W::Output {
    work.run()
}

/// [`super::Level::run_lanes`].
#[inline]
pub fn run_lanes(witness: Neon, work: impl LanesWork) {
    // SAFETY: the witness proves what the function is compiled for.
    unsafe { run_lanes_unchecked(witness, work) }
}

/// # Safety
/// NEON is present.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn run_lanes_unchecked(witness: Neon, work: impl LanesWork) {
    work.run::<LEN, F32x8>(witness);
}

/// Eight numbers in two registers; there are none without NEON.
#[derive(Clone, Copy)]
struct F32x8(float32x4_t, float32x4_t);

impl Lanes<LEN> for F32x8 {
    type Proof = Neon;

    #[inline(always)]
    fn load(_: Neon, from: &[f32; LEN]) -> Self {
        // SAFETY: the witness proves NEON, and there are eight floats.
        unsafe { Self(vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LEN]) {
        // SAFETY: `self` proves NEON, and there are eight floats.
        unsafe {
            vst1q_f32(to.as_mut_ptr(), self.0);
            vst1q_f32(to.as_mut_ptr().add(4), self.1);
        }
    }
}

impl Vector for F32x8 {
    #[inline(always)]
    fn mul_add(self, factor: f32, summand: Self) -> Self {
        // SAFETY: `self` proves NEON.
        unsafe { Self(vfmaq_n_f32(summand.0, self.0, factor), vfmaq_n_f32(summand.1, self.1, factor)) }
    }
}

impl Add for F32x8 {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves NEON.
        unsafe { Self(vaddq_f32(self.0, other.0), vaddq_f32(self.1, other.1)) }
    }
}

impl Sub for F32x8 {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` proves NEON.
        unsafe { Self(vsubq_f32(self.0, other.0), vsubq_f32(self.1, other.1)) }
    }
}

impl Mul<f32> for F32x8 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        // SAFETY: `self` proves NEON.
        unsafe { Self(vmulq_n_f32(self.0, factor), vmulq_n_f32(self.1, factor)) }
    }
}

/// [`super::tile::accumulate`]; every row is exactly as long as the panel.
pub fn accumulate(_: Neon, rows: &[&[f32]; ROWS], panel: &[Line], acc: &mut Tile) {
    assert!(rows.iter().all(|row| row.len() >= panel.len()));
    // SAFETY: the witness proves NEON; the assertion above gives the lengths that it needs.
    unsafe { accumulate_unchecked(rows, panel, acc) }
}

/// Four inputs of a row are loaded at once and multiplied by element: one that its load spreads over a register takes a turn
/// of the units that multiply.
///
/// # Safety
/// NEON is present and no row is shorter than the panel.
#[target_feature(enable = "neon")]
unsafe fn accumulate_unchecked(rows: &[&[f32]; ROWS], panel: &[Line], acc: &mut Tile) {
    // 24 registers of sums, 6 of rows, 2 of the panel: all 32.
    // SAFETY: a tile's row is 16 floats, four registers.
    let mut sums: [[float32x4_t; PARTS]; ROWS] = unsafe {
        std::array::from_fn(|r| std::array::from_fn(|part| vld1q_f32(acc[r].as_ptr().add(4 * part))))
    };
    let (fours, rest) = panel.as_chunks::<4>();
    for (at, [a, b, c, d]) in fours.iter().enumerate() {
        // SAFETY: 4 * at + 3 < panel.len(), and no row is shorter; NEON is present.
        unsafe {
            let inputs = std::array::from_fn(|r| vld1q_f32(rows[r].as_ptr().add(4 * at)));
            multiply::<0>(&mut sums, &inputs, a);
            multiply::<1>(&mut sums, &inputs, b);
            multiply::<2>(&mut sums, &inputs, c);
            multiply::<3>(&mut sums, &inputs, d);
        }
    }
    for (k, weights) in (panel.len() - rest.len()..).zip(rest) {
        // SAFETY: k < panel.len(), and no row is shorter; NEON is present.
        unsafe {
            let inputs = std::array::from_fn(|r| vld1q_dup_f32(rows[r].as_ptr().add(k)));
            multiply::<0>(&mut sums, &inputs, weights);
        }
    }
    for r in 0..ROWS {
        for part in 0..PARTS {
            // SAFETY: a tile's row is 16 floats, four registers.
            unsafe { vst1q_f32(acc[r].as_mut_ptr().add(4 * part), sums[r][part]) };
        }
    }
}

/// Adds the products of one input of every row, the one at place `K` of `inputs`, with its weights.
///
/// # Safety
/// NEON is present.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply<const K: i32>(
    sums: &mut [[float32x4_t; PARTS]; ROWS],
    inputs: &[float32x4_t; ROWS],
    weights: &Line,
) {
    for part in 0..PARTS {
        // SAFETY: a panel's row is 16 floats, four registers.
        let weights = unsafe { vld1q_f32(weights.as_ptr().add(4 * part)) };
        for (sums, &inputs) in sums.iter_mut().zip(inputs) {
            sums[part] = vfmaq_laneq_f32::<K>(sums[part], weights, inputs);
        }
    }
}

/// Some groups of `int8` (see [`super::dequantise::int8`]), 8 output channels x 4 inputs each, with one scale for each channel.
pub fn int8_groups(
    _: Neon,
    groups: &[[i8; BLOCK * GROUP]],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [Line],
) {
    assert!(rows.len() == GROUP * groups.len() && lane + BLOCK <= LANES);
    // SAFETY: the witness proves NEON; the assertion bounds every store.
    unsafe { int8_groups_unchecked(groups, scale, lane, rows) }
}

/// # Safety
/// NEON is present, and `lane` is at most 8.
#[target_feature(enable = "neon")]
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
/// NEON is present, and `lane` is at most 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn int8_group(
    group: &[i8; BLOCK * GROUP],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [Line; GROUP],
) {
    // SAFETY: a group is four times eight bytes, which are taken apart by their place in a group of four; the scales are
    // 8 floats.
    let (inputs, scale) = unsafe {
        let int8x8x4_t(a, b, c, d) = vld4_s8(group.as_ptr());
        ([a, b, c, d], [vld1q_f32(scale.as_ptr()), vld1q_f32(scale.as_ptr().add(4))])
    };
    for (row, bytes) in rows.iter_mut().zip(inputs) {
        let wide = vmovl_s8(bytes);
        let low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
        let high = vcvtq_f32_s32(vmovl_high_s16(wide));
        // SAFETY: lane + 8 <= 16, the length of a row.
        unsafe {
            vst1q_f32(row.as_mut_ptr().add(lane), vmulq_f32(low, scale[0]));
            vst1q_f32(row.as_mut_ptr().add(lane + 4), vmulq_f32(high, scale[1]));
        }
    }
}

/// One group of `float16` (see [`super::dequantise::float16`]): 8 output channels x 4 inputs.
pub fn float16_group(_: Neon, group: &[f16; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    assert!(rows.len() == GROUP && lane + BLOCK <= LANES);
    // SAFETY: the witness proves NEON; the assertion bounds every store.
    unsafe { float16_group_unchecked(group, lane, rows) }
}

/// # Safety
/// As [`float16_group`] asserts.
#[target_feature(enable = "neon")]
unsafe fn float16_group_unchecked(group: &[f16; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    // SAFETY: a group is four times eight halves, taken apart as the bytes above.
    let uint16x8x4_t(a, b, c, d) = unsafe { vld4q_u16(group.as_ptr().cast()) };
    for (row, halves) in rows.iter_mut().zip([a, b, c, d]) {
        let (low, high): (float32x4_t, float32x4_t);
        // SAFETY: the conversions are part of the baseline; they touch no memory and no flags that anybody reads.
        unsafe {
            asm!(
                "fcvtl {low:v}.4s, {halves:v}.4h",
                "fcvtl2 {high:v}.4s, {halves:v}.8h",
                low = out(vreg) low,
                high = lateout(vreg) high,
                halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        // SAFETY: lane + 8 <= 16, the length of a row.
        unsafe {
            vst1q_f32(row.as_mut_ptr().add(lane), low);
            vst1q_f32(row.as_mut_ptr().add(lane + 4), high);
        }
    }
}

/// One group of `float32` (see [`super::dequantise::float32`]): 8 output channels x 4 inputs.
pub fn float32_group(_: Neon, group: &[f32; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    assert!(rows.len() == GROUP && lane + BLOCK <= LANES);
    // SAFETY: the witness proves NEON; the assertion bounds every store.
    unsafe { float32_group_unchecked(group, lane, rows) }
}

/// # Safety
/// As [`float32_group`] asserts.
#[target_feature(enable = "neon")]
unsafe fn float32_group_unchecked(group: &[f32; BLOCK * GROUP], lane: usize, rows: &mut [Line]) {
    // SAFETY: a group is twice sixteen floats, taken apart as the bytes above.
    let [first, second] = unsafe { [vld4q_f32(group.as_ptr()), vld4q_f32(group.as_ptr().add(16))] };
    let low = [first.0, first.1, first.2, first.3];
    let high = [second.0, second.1, second.2, second.3];
    for ((row, low), high) in rows.iter_mut().zip(low).zip(high) {
        // SAFETY: lane + 8 <= 16, the length of a row.
        unsafe {
            vst1q_f32(row.as_mut_ptr().add(lane), low);
            vst1q_f32(row.as_mut_ptr().add(lane + 4), high);
        }
    }
}

/// Rows and output channels whose sums stay in registers, in [`i8_multiply`].
const SOME_ROWS: usize = ROWS / 2;
const SOME_LANES: usize = LANES / 2;

/// [`super::integer::Integer::multiply`] of groups in plain order: products of two outputs with four inputs are added in
/// pairs, first in 16 bits, of which two products of 8 take 15 and a sign, then in 32.
#[inline(never)]
pub fn i8_multiply(_: Neon, rows: &[&[i8]; ROWS], panel: &[Group<i8>]) -> Sums {
    assert!(rows.iter().all(|row| row.len() == GROUP * panel.len()) && panel.len().is_multiple_of(2));
    let mut sums = [[0; LANES]; ROWS];
    for (rows, sums) in rows.as_chunks::<SOME_ROWS>().0.iter().zip(sums.as_chunks_mut::<SOME_ROWS>().0) {
        for first in [0, SOME_LANES] {
            // SAFETY: the witness proves NEON; the assertion above gives the lengths.
            let part = unsafe { i8_multiply_some(rows, panel, first) };
            sums.iter_mut().zip(part).for_each(|(sums, part)| {
                sums[first..first + SOME_LANES].copy_from_slice(&part);
            });
        }
    }
    sums
}

/// # Safety
/// NEON is present, each row has four numbers for each group of the panel, whose number is even, and `first` is at most 8.
#[target_feature(enable = "neon")]
unsafe fn i8_multiply_some(
    rows: &[&[i8]; SOME_ROWS],
    panel: &[Group<i8>],
    first: usize,
) -> [[i32; SOME_LANES]; SOME_ROWS] {
    let mut sums = [[vdupq_n_s32(0); SOME_LANES / 2]; SOME_ROWS];
    for (at, [early, late]) in panel.as_chunks::<2>().0.iter().enumerate() {
        // SAFETY: there are two groups of four inputs, so eight more numbers of each row.
        let inputs: [[int8x8_t; 2]; SOME_ROWS] = std::array::from_fn(|r| unsafe {
            let eight = vreinterpret_s32_s8(vld1_s8(rows[r].as_ptr().add(2 * GROUP * at)));
            [vdup_lane_s32::<0>(eight), vdup_lane_s32::<1>(eight)].map(|x| vreinterpret_s8_s32(x))
        });
        for pair in 0..SOME_LANES / 2 {
            // SAFETY: a group has four numbers for each of 16 outputs, of which these are two of the last eight at most.
            let weights = unsafe {
                [early, late].map(|group| vld1_s8(group.0.as_ptr().add(GROUP * (first + 2 * pair))))
            };
            for r in 0..SOME_ROWS {
                let products = vmull_s8(weights[0], inputs[r][0]);
                let products = vmlal_s8(products, weights[1], inputs[r][1]);
                sums[r][pair] = vpadalq_s16(sums[r][pair], products);
            }
        }
    }
    let mut out = [[0; SOME_LANES]; SOME_ROWS];
    for (out, [a, b, c, d]) in out.iter_mut().zip(sums) {
        // SAFETY: a row is two registers.
        unsafe {
            vst1q_s32(out.as_mut_ptr(), vpaddq_s32(a, b));
            vst1q_s32(out.as_mut_ptr().add(4), vpaddq_s32(c, d));
        }
    }
    out
}
