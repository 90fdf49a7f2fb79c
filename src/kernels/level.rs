//! Which instruction set the kernels run on, found once.

use std::sync::OnceLock;

use super::Arithmetic;
use super::lanes::{self, LanesWork, Plain};

/// An instruction set that is known to be present: only [`Level::available`] makes the faster ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust, the definition of every kernel.
    Scalar,
    /// 256-bit vectors with fused multiply-add and f16 conversion.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// The same with dot products of 16-bit integers.
    #[cfg(target_arch = "x86_64")]
    Vnni(Vnni),
    /// 512-bit vectors, with dot products of 16-bit integers.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 128-bit vectors with fused multiply-add, the baseline of 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// The same with dot products of 8-bit integers.
    #[cfg(target_arch = "aarch64")]
    Dotprod(Dotprod),
    /// The same with products of small matrices of 8-bit integers.
    #[cfg(target_arch = "aarch64")]
    I8mm(I8mm),
}

/// The floating-point vectors of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vectors {
    /// What the compiler makes of plain Rust.
    Scalar,
    /// See [`Level::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// See [`Level::Avx512`].
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// See [`Level::Neon`].
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

/// Proof that AVX2, FMA and F16C were detected.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that what [`Avx2`] proves was detected, and AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vnni(Avx2);

/// Proof that what [`Avx2`] proves was detected, and AVX-512 with F, BW, DQ, VL and VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(Avx2);

/// Proof that NEON was detected.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neon(());

/// Proof that NEON and its dot products were detected.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dotprod(Neon);

/// Proof that NEON and its products of matrices were detected.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct I8mm(Neon);

/// What [`Level::run`] runs. Not a closure: those are not always inlined, and compiled for no level in particular then.
pub trait Work {
    /// What it makes.
    type Output;

    /// Does it. To be `#[inline(always)]`, with all that it calls.
    fn run(self) -> Self::Output;
}

impl Level {
    /// Names the level to use instead of the best, for tests; ignored if this machine does not have it.
    pub const VARIABLE: &str = "TINTYPE_LEVEL";

    /// The level that [`Level::VARIABLE`] names, or else the best of this machine.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Level> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let available = Self::available();
            let wanted = std::env::var(Self::VARIABLE).unwrap_or_default();
            let found = available.iter().find(|level| level.name() == wanted);
            *found.or(available.last()).expect("the scalar level is always there")
        })
    }

    /// The levels of this machine, slowest first.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::detect() {
            levels.push(Self::Avx2(avx2));
            levels.extend(Vnni::detect(avx2).map(Self::Vnni));
            levels.extend(Avx512::detect(avx2).map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            let neon = Neon(());
            levels.push(Self::Neon(neon));
            let has_dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
            levels.extend(has_dotprod.then_some(Self::Dotprod(Dotprod(neon))));
            let has_i8mm = std::arch::is_aarch64_feature_detected!("i8mm");
            levels.extend(has_i8mm.then_some(Self::I8mm(I8mm(neon))));
        }
        levels
    }

    /// What it multiplies floats with.
    pub fn vectors(self) -> Vectors {
        match self {
            Self::Scalar => Vectors::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) | Self::Vnni(Vnni(avx2)) => Vectors::Avx2(avx2),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(witness) => Vectors::Avx512(witness),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) | Self::Dotprod(Dotprod(neon)) | Self::I8mm(I8mm(neon)) => Vectors::Neon(neon),
        }
    }

    /// What products with `int8` weights are fastest in.
    pub fn arithmetic(self) -> Arithmetic {
        match self {
            Self::Scalar => Arithmetic::F32,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) | Self::Vnni(_) | Self::Avx512(_) => Arithmetic::I16,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) | Self::Dotprod(_) | Self::I8mm(_) => Arithmetic::I8,
        }
    }

    /// Runs plain Rust that is compiled for this level: the same operations in the same order, and so the same result,
    /// in wider vectors.
    #[inline]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self.vectors() {
            Vectors::Scalar => work.run(),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(witness) => super::avx2::run(witness, work),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(witness) => super::avx512::run(witness, work),
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon(witness) => super::neon::run(witness, work),
        }
    }

    /// Runs what is written for some numbers at a time, in the registers of this level.
    #[inline]
    pub fn run_lanes(self, work: impl LanesWork) {
        match self.vectors() {
            Vectors::Scalar => work.run::<{ lanes::LEN }, Plain>(()),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2(witness) => super::avx2::run_lanes(witness, work),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512(witness) => super::avx512::run_lanes(witness, work),
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon(witness) => super::neon::run_lanes(witness, work),
        }
    }

    /// The name that `--json` reports and that [`Level::VARIABLE`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Self::Dotprod(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Self::I8mm(_) => "i8mm",
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Vnni {
    fn detect(avx2: Avx2) -> Option<Self> {
        std::arch::is_x86_feature_detected!("avxvnni").then_some(Self(avx2))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    fn detect(avx2: Avx2) -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(avx2))
    }

    /// What is proved too.
    pub fn avx2(self) -> Avx2 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_that_the_environment_requires_is_there() {
        let Ok(required) = std::env::var("REQUIRE_LEVEL") else { return };
        let names: Vec<&str> = Level::available().iter().map(|level| level.name()).collect();
        println!("{}: {names:?}", std::env::consts::ARCH);
        assert!(names.contains(&required.as_str()), "REQUIRE_LEVEL={required}, but there is only {names:?}");
    }
}
