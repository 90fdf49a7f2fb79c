//! A map that is kept between passes, in f32 or at half the size in f16.

use std::borrow::Cow;
use std::collections::TryReserveError;
use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use tract_core::prelude::TValue;

use crate::engine::threads::Threads;

/// Numbers that one thread converts at a time.
const CHUNK: usize = 1 << 15;

/// Numbers of `[height, width, channels]`, read and written by rows.
pub struct Map {
    row_len: usize,
    numbers: Numbers,
}

enum Numbers {
    Half(Vec<f16>),
    Full(Vec<f32>),
    /// What the part before the region made.
    Given(TValue),
}

impl Map {
    /// A map of `height` rows of `row_len` numbers, yet to be written.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(height: usize, row_len: usize, half: bool) -> Result<Self, TryReserveError> {
        let numbers = if half {
            Numbers::Half(zeros(height * row_len, f16::ZERO)?)
        } else {
            Numbers::Full(zeros(height * row_len, 0.0)?)
        };
        Ok(Self { row_len, numbers })
    }

    /// A map that is there already.
    pub fn given(row_len: usize, value: TValue) -> Self {
        Self { row_len, numbers: Numbers::Given(value) }
    }

    /// Some rows; f32 is borrowed as it lies.
    pub fn read(&self, rows: Range<usize>, threads: &Threads) -> Result<Cow<'_, [f32]>, TryReserveError> {
        let range = rows.start * self.row_len..rows.end * self.row_len;
        match &self.numbers {
            Numbers::Full(numbers) => Ok(Cow::Borrowed(&numbers[range])),
            Numbers::Given(value) => {
                let plain = value.try_as_plain_ram().expect("our values are plain");
                Ok(Cow::Borrowed(&plain.as_slice::<f32>().expect("our values are f32")[range]))
            }
            Numbers::Half(numbers) => {
                let source = &numbers[range];
                let mut out = zeros(source.len(), 0.0)?;
                threads.for_each_chunk(&mut out, CHUNK, |at, out| {
                    source[at * CHUNK..][..out.len()].convert_to_f32_slice(out);
                });
                Ok(Cow::Owned(out))
            }
        }
    }

    /// Writes rows from `first` on.
    pub fn write(&mut self, first: usize, values: &[f32], threads: &Threads) {
        let range = first * self.row_len..first * self.row_len + values.len();
        match &mut self.numbers {
            Numbers::Full(numbers) => numbers[range].copy_from_slice(values),
            Numbers::Half(numbers) => threads.for_each_chunk(&mut numbers[range], CHUNK, |at, out| {
                out.convert_from_f32_slice(&values[at * CHUNK..][..out.len()]);
            }),
            Numbers::Given(_) => unreachable!("nothing is written over what is given"),
        }
    }

    /// The numbers of a map that was kept in f32.
    pub fn into_full(self) -> Vec<f32> {
        match self.numbers {
            Numbers::Full(numbers) => numbers,
            _ => unreachable!("the last map is kept in f32"),
        }
    }
}

/// `len` times `zero`.
///
/// # Errors
/// If there is no memory for them.
pub fn zeros<T: Copy>(len: usize, zero: T) -> Result<Vec<T>, TryReserveError> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(len)?;
    numbers.resize(len, zero);
    Ok(numbers)
}
