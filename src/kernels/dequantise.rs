//! Weights as they lie in the file -> a panel of `f32`, just before they are used.
//!
//! Stored matrices are `[O/8][K/4][8][4]`: blocks of 8 output channels, and within a block groups of 4
//! inputs. A panel is `[K][16]`: 16 output channels side by side, from two neighbouring blocks. Each function
//! here fills one half of a panel, 8 lanes starting at `lane`, from one block.

use half::f16;

use super::tile::LANES;
use super::Level;

/// Output channels in a stored block.
pub const BLOCK: usize = 8;
/// Inputs in a group of a stored block.
pub const GROUP: usize = 4;

/// How the `i8` values of a block become real numbers.
#[derive(Debug, Clone, Copy)]
pub struct Scales<'a> {
    /// `[ceil(K / run)][8]`, one scale per output channel and run of inputs.
    pub values: &'a [[f32; BLOCK]],
    /// Inputs that share a scale; a multiple of 4.
    pub run: usize,
}

/// Fills lanes `lane .. lane + 8` of `panel` from a block of `i8`, inputs `first .. first + panel.len()`.
///
/// `first` is a multiple of 4.
///
/// # Panics
/// If the block or the scales do not reach as far as the panel.
pub fn int8(
    level: Level,
    block: &[[i8; BLOCK * GROUP]],
    scales: Scales,
    first: usize,
    lane: usize,
    panel: &mut [[f32; LANES]],
) {
    let groups = &block[first / GROUP..];
    for ((g, group), rows) in groups.iter().enumerate().zip(panel.chunks_mut(GROUP)) {
        let scale = &scales.values[(first + g * GROUP) / scales.run];
        match (level, rows.len()) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2(witness), GROUP) => super::avx2::int8_group(witness, group, scale, lane, rows),
            _ => int8_group(group, scale, lane, rows),
        }
    }
}

fn int8_group(
    group: &[i8; BLOCK * GROUP],
    scale: &[f32; BLOCK],
    lane: usize,
    rows: &mut [[f32; LANES]],
) {
    for (k, row) in rows.iter_mut().enumerate() {
        for o in 0..BLOCK {
            row[lane + o] = f32::from(group[o * GROUP + k]) * scale[o];
        }
    }
}

/// Fills lanes `lane .. lane + 8` of `panel` from a block of `f16`, inputs `first .. first + panel.len()`.
///
/// # Panics
/// If the block does not reach as far as the panel.
pub fn float16(block: &[[f16; BLOCK * GROUP]], first: usize, lane: usize, panel: &mut [[f32; LANES]]) {
    transpose(&block[first / GROUP..], lane, panel, f16::to_f32);
}

/// Fills lanes `lane .. lane + 8` of `panel` from a block of `f32`, inputs `first .. first + panel.len()`.
///
/// # Panics
/// If the block does not reach as far as the panel.
pub fn float32(block: &[[f32; BLOCK * GROUP]], first: usize, lane: usize, panel: &mut [[f32; LANES]]) {
    transpose(&block[first / GROUP..], lane, panel, |x| x);
}

fn transpose<T: Copy>(
    groups: &[[T; BLOCK * GROUP]],
    lane: usize,
    panel: &mut [[f32; LANES]],
    real: impl Fn(T) -> f32,
) {
    assert!(groups.len() * GROUP >= panel.len(), "the block is shorter than the panel");
    for (group, rows) in groups.iter().zip(panel.chunks_mut(GROUP)) {
        for (k, row) in rows.iter_mut().enumerate() {
            for o in 0..BLOCK {
                row[lane + o] = real(group[o * GROUP + k]);
            }
        }
    }
}
