//! How the values and scales of a tensor lie in its blob.
//!
//! To a kernel every weight is a matrix `[O, K]`: `O` output channels (the first dimension), and all
//! `K` values that one of them takes. The blob is a function of dtype, layout, scales and shape alone:
//!
//! ```text
//! values   row:   [O][K]
//!          o8k4:  [ceil(O / 8)][ceil(K / 4)][8][4]
//! zeros    to a multiple of 64 bytes            | i8 only;
//! scales   row:   [O][B]                        | f32, B = 1 for "channel",
//!          o8k4:  [ceil(O / 8)][B][8]           | ceil(K / 32) for "block32"
//! ```
//!
//! So a kernel that works its way through eight outputs reads values and scales in one direction each.

use super::{BLOB_ALIGN, Dtype, Layout, Scales};

/// Output channels side by side in `o8k4`.
const ROWS: usize = 8;
/// Consecutive K of one channel in `o8k4`.
const GROUP: usize = 4;

/// What a tensor's blob holds: first `values`, then, from `scales_offset`, `scales`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extents {
    /// Count of values, padding of the layout included.
    pub values: usize,
    /// Where the scales start, in bytes from the start of the blob.
    pub scales_offset: usize,
    /// Count of scales, padding of the layout included; 0 where there are none.
    pub scales: usize,
    /// Length of the blob, in bytes.
    pub len: usize,
}

impl Extents {
    /// The extents of a tensor `[O, ...]`, or `None` if they overflow.
    pub fn new(dtype: Dtype, layout: Layout, scales: Option<Scales>, shape: &[usize]) -> Option<Self> {
        let (&o, rest) = shape.split_first()?;
        let k = rest.iter().try_fold(1usize, |k, &dim| k.checked_mul(dim))?;
        let per_channel = scales.map_or(0, |scales| scales.per_channel(k));
        let (o, k) = match layout {
            Layout::Row => (o, k),
            Layout::O8k4 => (o.checked_next_multiple_of(ROWS)?, k.checked_next_multiple_of(GROUP)?),
        };
        let values = o.checked_mul(k)?;
        let values_len = values.checked_mul(dtype.len_bytes())?;
        let scales = o.checked_mul(per_channel)?;
        let scales_offset = match scales {
            0 => values_len,
            _ => values_len.checked_next_multiple_of(BLOB_ALIGN)?,
        };
        let len = scales.checked_mul(size_of::<f32>())?.checked_add(scales_offset)?;
        Some(Self { values, scales_offset, scales, len })
    }
}

/// Row-major `[o, k]` to `[ceil(o / 8)][ceil(k / 4)][8][4]`, padded with zeros.
///
/// # Panics
/// If `values` is not `o * k` long.
pub fn pack_o8k4<T: Copy + Default>(values: &[T], o: usize, k: usize) -> Vec<T> {
    pack::<T, GROUP>(values, o, k)
}

/// `[ceil(o / 8)][ceil(k / 4)][8][4]` to row-major `[o, k]`, without the padding.
///
/// # Panics
/// If `packed` is not as long as [`pack_o8k4`] makes it.
pub fn unpack_o8k4<T: Copy + Default>(packed: &[T], o: usize, k: usize) -> Vec<T> {
    unpack::<T, GROUP>(packed, o, k)
}

/// Scales `[o, b]`, row-major, to `[ceil(o / 8)][b][8]`, padded with zeros; `b` scales for a channel.
///
/// # Panics
/// If `scales` is not `o * b` long.
pub fn pack_o8k4_scales(scales: &[f32], o: usize, b: usize) -> Vec<f32> {
    pack::<f32, 1>(scales, o, b)
}

/// Scales `[ceil(o / 8)][b][8]` to row-major `[o, b]`, without the padding.
///
/// # Panics
/// If `packed` is not as long as [`pack_o8k4_scales`] makes it.
pub fn unpack_o8k4_scales(packed: &[f32], o: usize, b: usize) -> Vec<f32> {
    unpack::<f32, 1>(packed, o, b)
}

fn pack<T: Copy + Default, const G: usize>(row_major: &[T], o: usize, k: usize) -> Vec<T> {
    assert_eq!(row_major.len(), o * k, "values of a matrix [{o}, {k}]");
    let mut packed = vec![T::default(); packed_len::<G>(o, k)];
    for_each_run::<G>(o, k, |at, from, len| {
        packed[at..at + len].copy_from_slice(&row_major[from..from + len]);
    });
    packed
}

fn unpack<T: Copy + Default, const G: usize>(packed: &[T], o: usize, k: usize) -> Vec<T> {
    assert_eq!(packed.len(), packed_len::<G>(o, k), "packed values of a matrix [{o}, {k}]");
    let mut row_major = vec![T::default(); o * k];
    for_each_run::<G>(o, k, |from, at, len| {
        row_major[at..at + len].copy_from_slice(&packed[from..from + len]);
    });
    row_major
}

fn packed_len<const G: usize>(o: usize, k: usize) -> usize {
    o.next_multiple_of(ROWS) * k.next_multiple_of(G)
}

/// Calls `run(packed, row_major, len)` for each run of at most `G` values that both orders share, with
/// the index where it starts in either.
fn for_each_run<const G: usize>(o: usize, k: usize, mut run: impl FnMut(usize, usize, usize)) {
    let groups = k.div_ceil(G);
    for row in 0..o {
        let first = (row / ROWS * groups * ROWS + row % ROWS) * G;
        for group in 0..groups {
            run(first + group * ROWS * G, row * k + group * G, G.min(k - group * G));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o8k4_lies_as_documented() {
        // [2, 5]: two groups of K, in each the four values of row 0, those of row 1, and six rows of
        // padding.
        let packed = pack_o8k4(&[1, 2, 3, 4, 5, 11, 12, 13, 14, 15i8], 2, 5);
        let mut expected = [0; 64];
        expected[..8].copy_from_slice(&[1, 2, 3, 4, 11, 12, 13, 14]);
        expected[32..40].copy_from_slice(&[5, 0, 0, 0, 15, 0, 0, 0]);
        assert_eq!(packed, expected);
    }

    #[test]
    fn scales_lie_as_documented() {
        // [9, 2]: the first scales of rows 0 to 7, their second ones, then row 8 alone.
        let scales: Vec<f32> = (0..9u8).flat_map(|row| [f32::from(row), f32::from(row) + 100.0]).collect();
        let packed = pack_o8k4_scales(&scales, 9, 2);
        let mut expected = [0.0; 32];
        expected[..16].copy_from_slice(&[
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0,
        ]);
        expected[16] = 8.0;
        expected[24] = 108.0;
        assert_eq!(packed, expected);
    }

    #[test]
    fn every_value_is_where_the_formula_says() {
        for (o, k) in (1..=17).flat_map(|o| (1..=9).map(move |k| (o, k))) {
            let values: Vec<f32> = (1..=o * k).map(|value| value as f32).collect();
            let packed = pack_o8k4(&values, o, k);
            for (row, col) in (0..o).flat_map(|row| (0..k).map(move |col| (row, col))) {
                let at = ((row / 8 * k.div_ceil(4) + col / 4) * 8 + row % 8) * 4 + col % 4;
                assert_eq!(packed[at], values[row * k + col], "[{o}, {k}] at [{row}, {col}]");
            }
            assert_eq!(packed.iter().filter(|&&value| value == 0.0).count(), packed.len() - o * k);
            assert_eq!(unpack_o8k4(&packed, o, k), values);
            assert_eq!(unpack_o8k4_scales(&pack_o8k4_scales(&values, o, k), o, k), values);
        }
    }

    #[test]
    fn extents_follow_from_dtype_layout_scales_and_shape() {
        use Dtype::{F16, F32, I8};
        use Layout::{O8k4, Row};
        use Scales::{Block32, Channel};
        let of = |dtype, layout, scales, shape: &[usize]| {
            Extents::new(dtype, layout, scales, shape).map(|e| (e.values, e.scales_offset, e.scales, e.len))
        };
        assert_eq!(of(F32, Row, None, &[3, 5]), Some((15, 60, 0, 60)));
        assert_eq!(of(F16, Row, None, &[7]), Some((7, 14, 0, 14)));
        assert_eq!(of(F16, O8k4, None, &[9, 5]), Some((128, 256, 0, 256)));
        assert_eq!(of(I8, Row, Some(Channel), &[3, 5]), Some((15, 64, 3, 76)));
        assert_eq!(of(I8, Row, Some(Block32), &[3, 33]), Some((99, 128, 6, 152)));
        assert_eq!(of(I8, O8k4, Some(Channel), &[2, 5]), Some((64, 64, 8, 96)));
        assert_eq!(of(I8, O8k4, Some(Block32), &[9, 3, 3, 4]), Some((576, 576, 32, 704)));
        assert_eq!(of(F32, Row, None, &[1 << 62, 1]), None);
        assert_eq!(of(I8, O8k4, Some(Channel), &[usize::MAX, 1]), None);
        assert_eq!(of(I8, Row, Some(Channel), &[usize::MAX / 2, 1]), None);
    }
}
