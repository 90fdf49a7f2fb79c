//! Numbers as bytes and bytes as numbers, without a copy.
#![allow(unsafe_code)]

use half::f16;

/// Numbers of which every bit pattern is a value, and which have no padding.
///
/// # Safety
/// Both must hold, and the type must not hold references or interior mutability.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: a primitive number.
unsafe impl Plain for i8 {}
// SAFETY: `repr(transparent)` over `u16`.
unsafe impl Plain for f16 {}
// SAFETY: a primitive number.
unsafe impl Plain for f32 {}

/// `bytes` as the little-endian numbers that they are.
///
/// # Panics
/// If `bytes` is not aligned for `T`, or does not hold a whole number of them.
pub(super) fn numbers<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: `T: Plain`, so any bytes are values of it; `align_to` sees to alignment and length.
    let (head, numbers, tail) = unsafe { bytes.align_to::<T>() };
    assert!(head.is_empty() && tail.is_empty(), "{} bytes at {:p} are not aligned", bytes.len(), bytes);
    numbers
}

/// `numbers` as their little-endian bytes.
pub(super) fn bytes<T: Plain>(numbers: &[T]) -> &[u8] {
    // SAFETY: `T: Plain` has no padding, so each of its bytes is initialised; a byte has no alignment.
    let (_, bytes, _) = unsafe { numbers.align_to::<u8>() };
    bytes
}
