//! Weights as they lie in the file -> a panel of `f32`, just before they are used.
//!
//! Stored matrices are `[O/8][K/4][8][4]`: blocks of 8 output channels, and within a block groups of 4
//! inputs. A panel is `[K][16]`: 16 output channels side by side, from two neighbouring blocks. Each function
//! here fills one half of a panel, 8 lanes starting at `lane`, from one block.

use half::f16;

use super::Level;
use super::level::Vectors;
use super::tile::Line;

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
    panel: &mut [Line],
) {
    let (mut groups, mut panel, mut input) = (&block[first / GROUP..], panel, first);
    while !panel.is_empty() {
        let scale = &scales.values[input / scales.run];
        let (rows, rest) = panel.split_at_mut(panel.len().min(scales.run - input % scales.run));
        let (whole, part) = rows.split_at_mut(rows.len() / GROUP * GROUP);
        let (own, others) = groups.split_at(whole.len() / GROUP);
        match level.vectors() {
            Vectors::Scalar => {
                own.iter()
                    .zip(whole.chunks_mut(GROUP))
                    .for_each(|(group, rows)| int8_group(group, scale, lane, rows));
            }
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(witness) => super::avx2::int8_groups(witness, own, scale, lane, whole),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(witness) => super::avx2::int8_groups(witness.avx2(), own, scale, lane, whole),
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon(witness) => super::neon::int8_groups(witness, own, scale, lane, whole),
        }
        if !part.is_empty() {
            int8_group(&others[0], scale, lane, part);
        }
        input += rows.len();
        (groups, panel) = (others, rest);
    }
}

fn int8_group(group: &[i8; BLOCK * GROUP], scale: &[f32; BLOCK], lane: usize, rows: &mut [Line]) {
    turn(group, lane, rows, |o, x| f32::from(x) * scale[o]);
}

/// Fills lanes `lane .. lane + 8` of `panel` from a block of `f16`, inputs `first .. first + panel.len()`.
///
/// # Panics
/// If the block does not reach as far as the panel.
pub fn float16(level: Level, block: &[[f16; BLOCK * GROUP]], first: usize, lane: usize, panel: &mut [Line]) {
    for_each_group(&block[first / GROUP..], panel, |group, rows| match (level.vectors(), rows.len()) {
        #[cfg(target_arch = "x86_64")]
        (Vectors::Avx2(witness), GROUP) => super::avx2::float16_group(witness, group, lane, rows),
        #[cfg(target_arch = "x86_64")]
        (Vectors::Avx512(witness), GROUP) => super::avx2::float16_group(witness.avx2(), group, lane, rows),
        #[cfg(target_arch = "aarch64")]
        (Vectors::Neon(witness), GROUP) => super::neon::float16_group(witness, group, lane, rows),
        _ => turn(group, lane, rows, |_, x| f16::to_f32(x)),
    });
}

/// Fills lanes `lane .. lane + 8` of `panel` from a block of `f32`, inputs `first .. first + panel.len()`.
///
/// # Panics
/// If the block does not reach as far as the panel.
pub fn float32(level: Level, block: &[[f32; BLOCK * GROUP]], first: usize, lane: usize, panel: &mut [Line]) {
    for_each_group(&block[first / GROUP..], panel, |group, rows| match (level.vectors(), rows.len()) {
        #[cfg(target_arch = "x86_64")]
        (Vectors::Avx2(witness), GROUP) => super::avx2::float32_group(witness, group, lane, rows),
        #[cfg(target_arch = "x86_64")]
        (Vectors::Avx512(witness), GROUP) => super::avx2::float32_group(witness.avx2(), group, lane, rows),
        #[cfg(target_arch = "aarch64")]
        (Vectors::Neon(witness), GROUP) => super::neon::float32_group(witness, group, lane, rows),
        _ => turn(group, lane, rows, |_, x| x),
    });
}

/// Calls `fill` with every group and the rows of the panel that it belongs to; the last may have less than [`GROUP`].
fn for_each_group<T>(
    groups: &[[T; BLOCK * GROUP]],
    panel: &mut [Line],
    fill: impl Fn(&[T; BLOCK * GROUP], &mut [Line]),
) {
    assert!(groups.len() * GROUP >= panel.len(), "the block is shorter than the panel");
    groups.iter().zip(panel.chunks_mut(GROUP)).for_each(|(group, rows)| fill(group, rows));
}

/// One group in plain Rust; `real` is told the channel and the number as it is stored.
fn turn<T: Copy>(group: &[T; BLOCK * GROUP], lane: usize, rows: &mut [Line], real: impl Fn(usize, T) -> f32) {
    for (k, row) in rows.iter_mut().enumerate() {
        for o in 0..BLOCK {
            row[lane + o] = real(o, group[o * GROUP + k]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LANES;
    use super::*;

    /// A block of `groups` groups whose values tell their place: output `o`, input `k` holds `9 o + k` or so.
    fn block(groups: usize) -> Vec<[i8; BLOCK * GROUP]> {
        let value =
            |g: usize, at: usize| (((at / GROUP) * 31 + (g * GROUP + at % GROUP) * 7) % 255) as u8 as i8;
        (0..groups).map(|g| std::array::from_fn(|at| value(g, at))).collect()
    }

    #[test]
    fn int8_values_land_in_their_lane_times_their_scale() {
        let groups = block(20);
        let scales: Vec<[f32; BLOCK]> =
            (0..3).map(|r| std::array::from_fn(|o| 0.5 + o as f32 + 10.0 * r as f32)).collect();
        for level in Level::available() {
            for (lane, first, len, run) in
                [(0, 0, 80, 32), (8, 4, 7, 32), (0, 28, 9, 32), (8, 0, 3, usize::MAX)]
            {
                let mut panel = vec![Line([f32::NAN; LANES]); len];
                int8(level, &groups, Scales { values: &scales, run }, first, lane, &mut panel);
                for (k, row) in panel.iter().enumerate() {
                    let input = first + k;
                    for o in 0..BLOCK {
                        let value = f32::from(groups[input / GROUP][o * GROUP + input % GROUP]);
                        assert_eq!(
                            row[lane + o],
                            value * scales[input / run][o],
                            "{level:?} input {input} output {o}"
                        );
                    }
                    let other = if lane == 0 { &row[8..] } else { &row[..8] };
                    assert!(other.iter().all(|x| x.is_nan()), "the other half was touched");
                }
            }
        }
    }

    #[test]
    fn floats_land_in_their_lane() {
        let real: Vec<[f32; BLOCK * GROUP]> = block(4).iter().map(|g| g.map(f32::from)).collect();
        let half: Vec<[f16; BLOCK * GROUP]> = real.iter().map(|g| g.map(f16::from_f32)).collect();
        let cases = [(0, 16), (4, 5), (12, 1)];
        for (level, (first, len)) in
            Level::available().into_iter().flat_map(|level| cases.map(|case| (level, case)))
        {
            let (mut a, mut b) = (vec![Line::ZERO; len], vec![Line::ZERO; len]);
            float32(level, &real, first, 8, &mut a);
            float16(level, &half, first, 8, &mut b);
            assert_eq!(a, b);
            for (k, row) in a.iter().enumerate() {
                let input = first + k;
                assert_eq!(
                    row[8..],
                    std::array::from_fn::<f32, 8, _>(|o| real[input / 4][o * 4 + input % 4])
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "the block is shorter than the panel")]
    fn a_panel_beyond_the_block_is_a_callers_bug() {
        float32(Level::Scalar, &[[0.0; BLOCK * GROUP]], 0, 0, &mut [Line::ZERO; 5]);
    }
}
