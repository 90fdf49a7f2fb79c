//! Which instruction set the kernels run on, found once at start.

/// An instruction set that is known to be present: only [`Level::detect`] makes the faster ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust, the definition of every kernel.
    Scalar,
    /// 256-bit vectors with fused multiply-add and f16 conversion.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 128-bit vectors with fused multiply-add, the baseline of 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

/// Proof that AVX2, FMA and F16C were detected.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2(());

/// Proof that NEON was detected.
#[cfg(target_arch = "aarch64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neon(());

/// What [`Level::run`] runs. Not a closure: those are not always inlined, and compiled for no level in particular then.
pub trait Work {
    /// What it makes.
    type Output;

    /// Does it. To be `#[inline(always)]`, with all that it calls.
    fn run(self) -> Self::Output;
}

impl Level {
    /// The best level of this machine.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(witness) = Avx2::detect() {
            return Self::Avx2(witness);
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            return Self::Neon(Neon(()));
        }
        Self::Scalar
    }

    /// Runs plain Rust that is compiled for this level: the same operations in the same order, and so the same result,
    /// in wider vectors.
    #[inline]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            Self::Scalar => work.run(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(witness) => super::avx2::run(witness, work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(witness) => super::neon::run(witness, work),
        }
    }

    /// The name that `--json` reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
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
