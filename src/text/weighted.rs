//! Prompts in the syntax of A1111's web UI: some words count more than others, and a prompt may be longer than the context.
//!
//! ```text
//! (word)  1.1 times      (word:1.3)  1.3 times      [word]  1 / 1.1 times      \( \) \[ \] \\  the character itself
//! BREAK   what follows is read by itself
//! ```
//! Brackets nest, and their factors multiply; one that is not closed counts to the end. Every stretch of one weight becomes tokens by
//! itself. These are cut into chunks of as many as the context has room for, 75, and a chunk is encoded with its own begin and end. Then
//! every state is multiplied by the weight of its token, and the chunk by what brings its mean back:
//!
//! ```text
//! z' = w z,   z'' = z' mean(z) / mean(z')
//! ```
//! One departure: a chunk ends where it is full, not at a comma before.
//!
//! Source: the documentation of stable-diffusion-webui 1.10, "Attention/emphasis"; `lpw_stable_diffusion` of diffusers'
//! community pipelines, which has the same weights and joins chunks otherwise.

use super::tokenizer::{Tokenizer, TokenizerError};

/// The factor of a bracket.
const FACTOR: f64 = 1.1;
/// The largest weight of a word.
const WEIGHT_MAX: f64 = 100.0;
/// What begins a chunk.
const BREAK: &str = "BREAK";

/// A weight that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`:{got})` in the prompt is no weight: expected a number from -{WEIGHT_MAX} to {WEIGHT_MAX}, such as (word:1.3); write \\) for a parenthesis"
)]
pub struct WeightError {
    /// What stands there.
    pub got: String,
}

/// A stretch of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text, and how much it counts.
    Text(String, f64),
    /// A new chunk.
    Break,
}

/// Tokens that are encoded together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chunk {
    /// As many as the context, with begin, end and padding.
    ids: Vec<u32>,
    /// Of the tokens after begin; 1 for those that have none.
    weights: Vec<f32>,
}

/// The parts of a prompt; neighbours differ in weight.
///
/// # Errors
/// [`WeightError`].
pub fn parse(prompt: &str) -> Result<Vec<Part>, WeightError> {
    let mut reader = Reader::default();
    let mut rest = prompt;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' if rest.starts_with(['(', ')', '[', ']', '\\']) => {
                reader.push(&rest[..1]);
                rest = &rest[1..];
            }
            '(' => reader.round.push(reader.parts.len()),
            '[' => reader.square.push(reader.parts.len()),
            ':' if !reader.round.is_empty() && weight_len(rest).is_some() => {
                let len = weight_len(rest).unwrap_or_default();
                reader.close_round(weight(&rest[..len])?);
                rest = &rest[len + 1..];
            }
            ')' if !reader.round.is_empty() => reader.close_round(FACTOR),
            ']' if !reader.square.is_empty() => reader.close_square(),
            _ => {
                let from = prompt.len() - rest.len() - c.len_utf8();
                let len = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                reader.push_words(&prompt[from..from + c.len_utf8() + len]);
                rest = &rest[len..];
            }
        }
    }
    Ok(reader.finish())
}

/// How long the digits, points and the sign are that `)` follows, if it does.
fn weight_len(rest: &str) -> Option<usize> {
    let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let len = digits.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let len = len + rest.len() - digits.len();
    (rest[len..].starts_with(')') && len > rest.len() - digits.len()).then_some(len)
}

fn weight(text: &str) -> Result<f64, WeightError> {
    let weight = text.parse().ok().filter(|weight: &f64| weight.abs() <= WEIGHT_MAX);
    weight.ok_or_else(|| WeightError { got: text.to_owned() })
}

/// What has been read, and the brackets that are open, by the part that they began with.
#[derive(Default)]
struct Reader {
    parts: Vec<Part>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Reader {
    fn push(&mut self, text: &str) {
        self.parts.push(Part::Text(text.to_owned(), 1.0));
    }

    /// Text in which BREAK may stand, as a word.
    fn push_words(&mut self, text: &str) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut from = 0;
        for (at, _) in text.match_indices(BREAK) {
            let (before, after) = (&text[..at], &text[at + BREAK.len()..]);
            if before.ends_with(is_word) || after.starts_with(is_word) {
                continue;
            }
            self.push(text[from..at].trim_end());
            self.parts.push(Part::Break);
            from = text.len() - after.trim_start().len();
        }
        self.push(&text[from.min(text.len())..]);
    }

    fn close_round(&mut self, factor: f64) {
        let from = self.round.pop().unwrap_or_default();
        self.multiply(from, factor);
    }

    fn close_square(&mut self) {
        let from = self.square.pop().unwrap_or_default();
        self.multiply(from, 1.0 / FACTOR);
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        for part in &mut self.parts[from..] {
            if let Part::Text(_, weight) = part {
                *weight *= factor;
            }
        }
    }

    fn finish(mut self) -> Vec<Part> {
        while let Some(from) = self.round.pop() {
            self.multiply(from, FACTOR);
        }
        while let Some(from) = self.square.pop() {
            self.multiply(from, 1.0 / FACTOR);
        }
        let mut merged: Vec<Part> = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            match (merged.last_mut(), part) {
                (_, Part::Text(text, _)) if text.is_empty() => {}
                (Some(Part::Text(before, weight)), Part::Text(text, own)) if *weight == own => {
                    *before += &text;
                }
                (_, part) => merged.push(part),
            }
        }
        merged
    }
}

/// The chunks of a prompt, each of as many tokens as there is room for; at least one.
pub(super) fn chunks(parts: &[Part], tokenizer: &Tokenizer) -> Result<Vec<Chunk>, TokenizerError> {
    let mut chunks = Vec::new();
    let (mut ids, mut weights) = (Vec::new(), Vec::new());
    let mut close = |ids: &mut Vec<u32>, weights: &mut Vec<f32>| {
        chunks.push(Chunk::new(ids, weights, tokenizer));
        ids.clear();
        weights.clear();
    };
    for part in parts {
        let Part::Text(text, weight) = part else {
            close(&mut ids, &mut weights);
            continue;
        };
        for id in tokenizer.ids(text)? {
            if ids.len() == tokenizer.room() {
                close(&mut ids, &mut weights);
            }
            ids.push(id);
            weights.push(*weight as f32);
        }
    }
    // Nothing at all is a chunk too; nothing behind a BREAK is none.
    if !ids.is_empty() || !matches!(parts.last(), Some(Part::Break)) {
        close(&mut ids, &mut weights);
    }
    Ok(chunks)
}

impl Chunk {
    /// Of these tokens, for which there is room.
    pub(super) fn new(ids: &[u32], weights: &[f32], tokenizer: &Tokenizer) -> Self {
        Self { ids: tokenizer.framed(ids).to_vec(), weights: weights.to_vec() }
    }

    /// Of tokens that have begin and end, and no weights.
    pub(super) fn framed(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), weights: Vec::new() }
    }

    /// As many ids as the context.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Applies the weights to the chunk's states, the first of which is that of the token before it.
    pub(super) fn weigh(&self, states: &mut [f32], width: usize) {
        if self.weights.iter().all(|&weight| weight == 1.0) {
            return;
        }
        let mean = |states: &[f32]| states.iter().map(|&x| f64::from(x)).sum::<f64>() / states.len() as f64;
        let before = mean(states);
        for (state, weight) in states.chunks_exact_mut(width).skip(1).zip(&self.weights) {
            state.iter_mut().for_each(|x| *x *= weight);
        }
        let ratio = (before / mean(states)) as f32;
        if ratio.is_finite() {
            states.iter_mut().for_each(|x| *x *= ratio);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(prompt: &str) -> Vec<(String, f64)> {
        let parts = parse(prompt).unwrap().into_iter();
        let pair = |part| match part {
            Part::Text(text, weight) => (text, (weight * 1e9).round() / 1e9),
            Part::Break => (BREAK.to_owned(), -1.0),
        };
        parts.map(pair).collect()
    }

    /// The examples of A1111's own documentation of its parser, and of what it says of BREAK.
    #[test]
    fn prompts_are_read_as_their_syntax_is_documented() {
        for (prompt, want) in [
            ("normal text", &[("normal text", 1.0)][..]),
            ("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
            ("(unbalanced", &[("unbalanced", 1.1)]),
            ("\\(literal\\]", &[("(literal]", 1.0)]),
            ("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]),
            (
                "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
                &[
                    ("a ", 1.0),
                    ("house", 1.573),
                    (" ", 1.1),
                    ("on", 1.0),
                    (" a ", 1.1),
                    ("hill", 0.55),
                    (", sun, ", 1.1),
                    ("sky", 1.4641),
                    (".", 1.1),
                ],
            ),
            ("a red hat BREAK blue", &[("a red hat", 1.0), (BREAK, -1.0), ("blue", 1.0)]),
            ("BREAKFAST", &[("BREAKFAST", 1.0)]),
            ("", &[]),
            ("a)b]", &[("a)b]", 1.0)]),
            ("ratio 3:2 (x: y)", &[("ratio 3:2 ", 1.0), ("x: y", 1.1)]),
            ("(딸기:-0.5)", &[("딸기", -0.5)]),
            ("c:\\dir", &[("c:\\dir", 1.0)]),
        ] {
            let want: Vec<(String, f64)> =
                want.iter().map(|&(text, weight)| (text.to_owned(), weight)).collect();
            assert_eq!(parsed(prompt), want, "{prompt:?}");
        }
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        for (prompt, got) in [("(a:1.2.3)", "1.2.3"), ("(a:.)", "."), ("(a:1000)", "1000")] {
            let error = parse(prompt).unwrap_err();
            assert_eq!(error.got, got);
            assert!(error.to_string().contains("(word:1.3)"));
        }
    }

    #[test]
    fn a_chunk_keeps_its_mean() {
        let chunk = Chunk { ids: vec![0, 1, 2, 9], weights: vec![2.0, 0.5] };
        let mut states = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        chunk.weigh(&mut states, 2);
        let sum: f32 = states.iter().sum();
        assert!((sum - 36.0).abs() < 1e-4, "{states:?}");
        assert!((states[2] / states[0] - 6.0).abs() < 1e-5 && (states[4] / states[0] - 2.5).abs() < 1e-5);
    }
}
