//! Which element of a value stands where in an ONNX tensor.
//!
//! ONNX graphs are full of `Transpose` and `Reshape`: maps become sequences, channels are split into heads
//! and joined again. None of it computes anything. A [`View`] follows it: it says, for each dimension of the
//! ONNX tensor, which digits of which axes of one of our values it runs through, outermost first.
//!
//! ```text
//! value    [n, h, w, c]                       channels last, as it lies in memory
//! map      n | c | h | w                      what ONNX calls NCHW
//! tokens   n | h w | c                        after Transpose and Reshape
//! heads    n | c/40 | h w | c%40              after Reshape and Transpose
//! ```
//! A transposition permutes the dimensions, a reshape cuts the list of digits elsewhere. At the end of the
//! day an operation asks whether the view is one that it knows, and nothing was moved. Digits of size 1 are
//! left out: they take part in nothing.

use crate::engine::graph::Value;

/// One digit of an axis: `index / stride % size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// The axis of the value.
    pub axis: usize,
    /// The weight of the digit within the axis.
    pub stride: usize,
    /// How many values it takes.
    pub size: usize,
}

/// An ONNX tensor as an arrangement of a value's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The value that holds the elements.
    pub value: Value,
    /// The digits that each dimension runs through, outermost first.
    pub dims: Vec<Vec<Digit>>,
}

impl View {
    /// The value as it lies, dimensions in the order of its axes.
    pub fn whole(value: Value, shape: &[usize]) -> Self {
        Self { value, dims: (0..shape.len()).map(|axis| full(axis, shape)).collect() }
    }

    /// A channels-last map under the name of a channels-first one.
    pub fn channels_first(value: Value, shape: &[usize]) -> Self {
        Self::whole(value, shape).transpose(&[0, 3, 1, 2])
    }

    /// A channels-last value cut into groups of channels: batch, group, all the rest; `None` if the channels
    /// cannot be cut so.
    pub fn channels_last_to_groups(value: Value, shape: &[usize], groups: usize) -> Option<Self> {
        let whole = Self::whole(value, shape);
        let last = shape.len() - 1;
        let order: Vec<usize> = std::iter::once(0).chain([last]).chain(1..last).collect();
        let rest = shape[1..].iter().product::<usize>().checked_div(groups)?;
        whole.transpose(&order).reshape(&[shape[0], groups, rest])
    }

    /// The sizes of the dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|digits| digits.iter().map(|d| d.size).product()).collect()
    }

    /// The same arrangement of another value of the same shape.
    pub fn with_value(&self, value: Value) -> Self {
        Self { value, dims: self.dims.clone() }
    }

    /// The same arrangement of another value, which has `channels` instead of the last axis of `shape`;
    /// `None` if the channels are not one dimension of this view.
    pub fn with_channels(&self, value: Value, shape: &[usize], channels: usize) -> Option<Self> {
        let mut dims = self.dims.clone();
        let axis = shape.len() - 1;
        dims[self.channel_dim(shape)?] = digit(axis, channels);
        Some(Self { value, dims })
    }

    /// The dimensions in another order.
    pub fn transpose(&self, permutation: &[usize]) -> Self {
        Self { value: self.value, dims: permutation.iter().map(|&p| self.dims[p].clone()).collect() }
    }

    /// The same sequence of elements cut into other dimensions; `None` where a cut falls inside a digit in a
    /// way that no digits can say.
    pub fn reshape(&self, shape: &[usize]) -> Option<Self> {
        let mut rest: Vec<Digit> = self.dims.iter().rev().flat_map(|d| d.iter().rev()).copied().collect();
        let mut dims = Vec::with_capacity(shape.len());
        for &size in shape {
            let mut open = size;
            let mut digits = Vec::new();
            while open > 1 {
                let next = rest.pop()?;
                if open.is_multiple_of(next.size) {
                    open /= next.size;
                    digits.push(next);
                } else if next.size.is_multiple_of(open) {
                    let inner = next.size / open;
                    digits.push(Digit { stride: next.stride * inner, size: open, ..next });
                    rest.push(Digit { size: inner, ..next });
                    open = 1;
                } else {
                    return None;
                }
            }
            dims.push(joined(digits));
        }
        rest.is_empty().then_some(Self { value: self.value, dims })
    }

    /// Whether the last dimension is the value's last axis and the ones before it are the other axes in
    /// order: rows of channels, as they lie. `shape` is the value's.
    pub fn is_channels_last(&self, shape: &[usize]) -> bool {
        let Some((channels, rows)) = self.dims.split_last() else { return false };
        let last = shape.len() - 1;
        *channels == full(last, shape) && joined(rows.concat()) == outer(shape)
    }

    /// Whether this is a map by ONNX's order: batch, channels, height, width.
    pub fn is_channels_first(&self, shape: &[usize]) -> bool {
        shape.len() == 4 && self.dims == Self::channels_first(self.value, shape).dims
    }

    /// Whether the dimensions are `[batch, channels, 1, 1]` of a value `[batch, channels]`.
    pub fn is_vector_per_map(&self, shape: &[usize]) -> bool {
        shape.len() == 2
            && self.dims.len() == 4
            && self.dims[..2] == [full(0, shape), full(1, shape)]
            && self.dims[2..].iter().all(Vec::is_empty)
    }

    /// The dimension that holds exactly the value's channels.
    pub fn channel_dim(&self, shape: &[usize]) -> Option<usize> {
        if self.is_channels_last(shape) {
            return Some(self.dims.len() - 1);
        }
        if self.is_channels_first(shape) {
            return Some(1);
        }
        let channels = full(shape.len() - 1, shape);
        self.dims.iter().position(|digits| !digits.is_empty() && *digits == channels)
    }
}

/// All axes of a value but the last, in order.
pub fn outer(shape: &[usize]) -> Vec<Digit> {
    (0..shape.len() - 1).flat_map(|axis| full(axis, shape)).collect()
}

fn full(axis: usize, shape: &[usize]) -> Vec<Digit> {
    digit(axis, shape[axis])
}

fn digit(axis: usize, size: usize) -> Vec<Digit> {
    if size == 1 { Vec::new() } else { vec![Digit { axis, stride: 1, size }] }
}

/// Neighbouring digits of one axis that continue each other become one.
pub fn joined(digits: Vec<Digit>) -> Vec<Digit> {
    let mut joined: Vec<Digit> = Vec::with_capacity(digits.len());
    for digit in digits {
        match joined.last_mut() {
            Some(last) if last.axis == digit.axis && last.stride == digit.stride * digit.size => {
                *last = Digit { size: last.size * digit.size, ..digit };
            }
            _ => joined.push(digit),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 5, 12];

    #[test]
    fn a_map_becomes_tokens_becomes_heads_and_comes_back() {
        let map = View::channels_first(7, &SHAPE);
        assert_eq!(map.shape(), [2, 12, 3, 5]);
        let tokens = map.transpose(&[0, 2, 3, 1]).reshape(&[2, 15, 12]).unwrap();
        assert!(tokens.is_channels_last(&SHAPE));
        let heads = tokens.reshape(&[2, 15, 4, 3]).unwrap().transpose(&[0, 2, 1, 3]);
        assert_eq!(heads.shape(), [2, 4, 15, 3]);
        assert!(!heads.is_channels_last(&SHAPE));
        let back = heads.transpose(&[0, 2, 1, 3]).reshape(&[2, 3, 5, 12]).unwrap().transpose(&[0, 3, 1, 2]);
        assert_eq!(back, map);
        assert!(back.is_channels_first(&SHAPE));
    }

    #[test]
    fn a_reshape_that_mixes_axes_is_not_mistaken_for_one_that_does_not() {
        // Reading a channels-first map as rows of channels without transposing it is a real movement.
        let wrong = View::channels_first(0, &SHAPE).reshape(&[2, 15, 12]).map(|v| v.is_channels_last(&SHAPE));
        assert_ne!(wrong, Some(true));
        assert_eq!(View::whole(0, &[6, 5]).reshape(&[4, 7]), None);
        assert_eq!(View::whole(0, &[6, 5]).reshape(&[6]), None);
    }
}
