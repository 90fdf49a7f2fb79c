//! What an ONNX value stands for, on the way to whole operations.

use crate::engine::graph::{TokenRule, Value};

use super::constant::Constant;
use super::view::View;

/// Something that has been computed, seen through a view, a range of its channels and a factor.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The arrangement of the elements.
    pub view: View,
    /// The range of channels `(start, len)`, if not all.
    pub part: Option<(usize, usize)>,
    /// What every element is still to be multiplied by.
    pub factor: f32,
}

impl Operand {
    /// All of a view, as it is.
    pub fn whole(view: View) -> Self {
        Self { view, part: None, factor: 1.0 }
    }

    /// Whether the other is the same apart from its factor.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.view == other.view && self.part == other.part
    }
}

/// Attention up to some point: the scores of queries and keys, or their softmax.
#[derive(Debug, Clone)]
pub struct Scores {
    /// `[n, heads, t, d]`.
    pub queries: View,
    /// `[n, heads, d, s]`.
    pub keys: View,
    /// The factor before the softmax.
    pub scale: f32,
    /// Whether later keys are masked.
    pub causal: bool,
    /// What else says which keys are seen.
    pub mask: Option<Value>,
    /// Whether the softmax has been taken.
    pub softmax: bool,
}

/// A mask over keys up to some point: 1 where a key is not seen, and then much less than 0.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// The graph input that is not 0 where a key is seen.
    pub seen: Value,
    /// Whether it is ready to be added to scores.
    pub scaled: bool,
    /// Whether later keys are masked, too.
    pub causal: bool,
}

/// A layer normalisation in single steps, up to one of them; all are of the last axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// The mean.
    Mean,
    /// What is left without the mean.
    Centred,
    /// The square of that.
    Squared,
    /// The mean of the squares.
    Variance,
    /// The variance with so much added.
    Padded(f32),
    /// The root of that.
    Deviation(f32),
}

/// What a normalisation takes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// So many groups of the channels, and all pixels.
    Groups(usize),
    /// The channels of one row.
    Channels,
}

/// A normalisation up to some point.
#[derive(Debug, Clone)]
pub struct Normalised {
    /// The rows, the map, or its groups.
    pub view: View,
    /// What is normalised together.
    pub over: Over,
    /// Added to the variance.
    pub epsilon: f32,
    /// The factors, once they have been met.
    pub weight: Option<Constant>,
}

/// Sinusoids of a timestep up to some point.
#[derive(Debug, Clone)]
pub struct Sinusoids {
    /// The timesteps.
    pub timesteps: Value,
    /// The frequencies, `[c / 2]`.
    pub frequencies: Constant,
    /// Which of the two functions, in which order.
    pub waves: Waves,
}

/// The functions that have been taken of `timestep x frequency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waves {
    /// None yet.
    Angles,
    /// The sine.
    Sine,
    /// The cosine.
    Cosine,
    /// Sines, then cosines.
    SineCosine,
    /// Cosines, then sines.
    CosineSine,
}

/// The meaning of one ONNX value.
#[derive(Debug, Clone)]
pub enum Meaning {
    /// A computed value.
    Live(Operand),
    /// Fixed numbers.
    Constant(Constant),
    /// A map with zeros around it: top, left, bottom, right.
    Padded(Operand, [usize; 4]),
    /// The sigmoid of the operand, its factor included.
    Sigmoid(Operand),
    /// The error function of the operand, its factor included.
    Erf(Operand),
    /// One more than [`Meaning::Erf`], times a factor.
    ErfPlusOne(Operand, f32),
    /// `factor x (1 + erf(x / sqrt 2))`; GELU once the factor is one half.
    Gaussian(Operand),
    /// A normalisation.
    Normalised(Normalised),
    /// A step of a layer normalisation of the rows.
    Moment(View, Moment),
    /// Attention.
    Scores(Scores),
    /// What is added to scores so that some keys are not seen.
    Mask(Mask),
    /// A timestep embedding.
    Sinusoids(Sinusoids),
    /// Where a token id stands: 1 at the places where it does.
    IsId(Value, i64),
    /// The place of one token of each sequence, by the ids in the value.
    Place(Value, TokenRule),
}

impl Meaning {
    /// What it is called in messages.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Live(_) => "a value",
            Self::Constant(_) => "a constant",
            Self::Padded(..) => "padding",
            Self::Sigmoid(_) => "a sigmoid",
            Self::Erf(_) | Self::ErfPlusOne(..) | Self::Gaussian(_) => "a part of GELU",
            Self::Normalised(_) => "a normalisation without its factors and summands",
            Self::Moment(..) => "a part of a layer normalisation",
            Self::Scores(_) => "an attention's score matrix",
            Self::Mask(_) => "a mask over keys",
            Self::Sinusoids(_) => "a part of a timestep embedding",
            Self::IsId(..) | Self::Place(..) => "the place of a token",
        }
    }
}
