//! Some numbers to which the same is done, in the registers of a level.
//!
//! Most loops are left to the compiler ([`super::level::Work`]). Where it does not see that numbers go the same way, a kernel
//! is written over [`Lanes`], and [`super::Level::run_lanes`] chooses the registers, and so how many numbers. Every operation is
//! rounded once, so all levels give the same bits.

use std::ops::{Add, Mul, Sub};

/// How many numbers every level can take together.
pub const LEN: usize = 8;

/// Numbers that are taken together.
pub trait Vector: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<f32, Output = Self> {
    /// `self * factor + summand`, rounded once.
    fn mul_add(self, factor: f32, summand: Self) -> Self;
}

/// `N` numbers.
pub trait Lanes<const N: usize>: Vector {
    /// What proves that the level is there.
    type Proof: Copy;

    /// Takes the numbers from memory.
    fn load(proof: Self::Proof, from: &[f32; N]) -> Self;

    /// Puts them into memory.
    fn store(self, to: &mut [f32; N]);
}

/// What [`super::Level::run_lanes`] runs; to be `#[inline(always)]`, with all that it calls.
pub trait LanesWork {
    /// Whether so many numbers may be taken together: [`LEN`] may, some levels ask for more.
    fn divides_by(&self, len: usize) -> bool;

    /// Does it.
    fn run<const N: usize, L: Lanes<N>>(self, proof: L::Proof);
}

/// In plain Rust.
#[derive(Clone, Copy)]
pub struct Plain([f32; LEN]);

impl Lanes<LEN> for Plain {
    type Proof = ();

    #[inline(always)]
    fn load((): (), from: &[f32; LEN]) -> Self {
        Self(*from)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LEN]) {
        *to = self.0;
    }
}

impl Vector for Plain {
    #[inline(always)]
    fn mul_add(self, factor: f32, summand: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].mul_add(factor, summand.0[at])))
    }
}

impl Add for Plain {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }
}

impl Sub for Plain {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] - other.0[at]))
    }
}

impl Mul<f32> for Plain {
    type Output = Self;

    #[inline(always)]
    fn mul(self, factor: f32) -> Self {
        Self(self.0.map(|x| x * factor))
    }
}
