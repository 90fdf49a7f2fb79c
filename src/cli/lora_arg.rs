//! A LoRA as it is typed.

use std::path::PathBuf;
use std::str::FromStr;

/// `FILE` or `FILE:STRENGTH`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraArg {
    /// The file.
    pub path: PathBuf,
    /// How strongly it is to be applied.
    pub strength: f32,
}

impl LoraArg {
    /// At the strength that it was trained for.
    pub fn full(path: PathBuf) -> Self {
        Self { path, strength: 1.0 }
    }
}

impl FromStr for LoraArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What follows the last colon is part of the name unless it is a number.
        let parts = text.rsplit_once(':').and_then(|(path, strength)| Some((path, strength.parse().ok()?)));
        let (path, strength) = parts.unwrap_or((text, 1.0));
        Ok(Self { path: path.into(), strength })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_is_what_follows_the_last_colon() {
        let cases = [
            ("a", "a", 1.0),
            ("a:0.5", "a", 0.5),
            ("a:-1", "a", -1.0),
            ("a:b", "a:b", 1.0),
            ("a:b:2", "a:b", 2.0),
        ];
        for (text, path, strength) in cases {
            assert_eq!(text.parse(), Ok(LoraArg { path: path.into(), strength }), "{text}");
        }
    }
}
