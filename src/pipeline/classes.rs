//! The class that a prompt names.

use crate::bundle::{Bundle, Classes, Component};

/// How many names are offered in place of one that is not known, or where one is needed.
const OFFERED: usize = 3;

/// Why a prompt names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// A prompt for a model that has no classes.
    #[error("this model draws without being told what: leave the prompt out")]
    None,
    /// No prompt, for a model that needs a class.
    #[error("this model needs to be told a class, such as {}", examples.join(", "))]
    Needed {
        /// Some of its classes.
        examples: Vec<String>,
    },
    /// A class that is not known.
    #[error("this model has no class `{got}`: did you mean {}?", nearest.join(", "))]
    Unknown {
        /// What was asked for.
        got: String,
        /// The names that are most like it.
        nearest: Vec<String>,
    },
    /// A class that is not known, of a model whose classes have no names.
    #[error("this model knows its classes by number, from 0 to {last}, and none called `{got}`")]
    Number {
        /// What was asked for.
        got: String,
        /// The last number.
        last: usize,
    },
    /// Guidance for a model that has nothing to be guided away from.
    #[error("guidance leads away from a picture of no class, and this model knows none: take a scale of 1")]
    NoNull,
}

/// The number of the class that `prompt` names, or that stands for none; `None` for a model without classes.
///
/// # Errors
/// [`ClassError`].
pub fn label(bundle: &Bundle, prompt: &str) -> Result<Option<usize>, ClassError> {
    let prompt = prompt.trim();
    let Some(count) = count(bundle) else {
        return if prompt.is_empty() { Ok(None) } else { Err(ClassError::None) };
    };
    let names = bundle.pipeline().classes.as_ref().map_or(&[][..], |classes| &classes.names);
    if prompt.is_empty() {
        let examples = || names.iter().take(OFFERED).map(|class| class.name.clone()).collect::<Vec<_>>();
        let needed = || match examples() {
            none if none.is_empty() => ClassError::Number { got: String::new(), last: count - 1 },
            examples => ClassError::Needed { examples },
        };
        return null(bundle).map(Some).ok_or_else(needed);
    }
    match &bundle.pipeline().classes {
        Some(classes) if !classes.names.is_empty() => {
            let found = classes.find(prompt).filter(|&label| label < count);
            found.map(Some).ok_or_else(|| unknown(classes, prompt))
        }
        _ => {
            let number = prompt.parse().ok().filter(|&label| label < count);
            number.map(Some).ok_or_else(|| ClassError::Number { got: prompt.to_owned(), last: count - 1 })
        }
    }
}

/// The number that stands for no class.
pub fn null(bundle: &Bundle) -> Option<usize> {
    let null = bundle.pipeline().classes.as_ref()?.null?;
    Some(null).filter(|&null| count(bundle).is_some_and(|count| null < count))
}

/// How many classes the UNet is told apart.
fn count(bundle: &Bundle) -> Option<usize> {
    let count = bundle.component(Component::Unet)?.config["num_class_embeds"].as_u64()?;
    usize::try_from(count).ok().filter(|&count| count > 0)
}

fn unknown(classes: &Classes, got: &str) -> ClassError {
    let lower = got.to_lowercase();
    let mut names: Vec<(usize, &str)> = classes
        .names
        .iter()
        .map(|class| {
            let likeness = class.all().map(|name| distance(&name.to_lowercase(), &lower)).min();
            (likeness.unwrap_or(usize::MAX), class.name.as_str())
        })
        .collect();
    names.sort();
    let nearest = names.iter().take(OFFERED).map(|(_, name)| (*name).to_owned()).collect();
    ClassError::Unknown { got: got.to_owned(), nearest }
}

/// How many letters have to be changed, added or left out to make `b` of `a`.
///
/// Source: Levenshtein 1966; the row-by-row form of Wagner and Fischer 1974.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        for (a, b, expected) in [
            ("", "", 0),
            ("cat", "cat", 0),
            ("cat", "", 3),
            ("", "cat", 3),
            ("kitten", "sitting", 3),
            ("딸기", "기", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
