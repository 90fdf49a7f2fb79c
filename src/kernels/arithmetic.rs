//! What numbers are multiplied as.

/// What a product with `int8` weights is computed in; weights of other types are always multiplied in [`Arithmetic::F32`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Floats, with fused multiply-add in the order of the inputs: the same bits at every level.
    F32,
    /// Integers of 16 bits, as [`integer`](super::integer) describes; about as exact as f32 is with such weights.
    I16,
    /// Integers of 8 bits, which cost about as much accuracy again as `int8` weights did.
    I8,
}

impl Arithmetic {
    /// Names the arithmetic to use instead of the level's own, for tests; other names are ignored.
    pub const VARIABLE: &str = "TINTYPE_ARITHMETIC";

    /// All that there are, each on every machine.
    pub const ALL: [Self; 3] = [Self::F32, Self::I16, Self::I8];

    /// The one that [`Arithmetic::VARIABLE`] names, or else `own`.
    pub fn wanted_or(own: Self) -> Self {
        let wanted = std::env::var(Self::VARIABLE).unwrap_or_default();
        Self::ALL.into_iter().find(|arithmetic| arithmetic.name() == wanted).unwrap_or(own)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::I16 => "i16",
            Self::I8 => "i8",
        }
    }
}
