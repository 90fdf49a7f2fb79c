//! The words of a prompt, and which tokens spell them.

use std::ops::Range;

/// What stands between white space in a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As it stands there.
    pub text: String,
    /// Its tokens, counted from the beginning of the context, where the token that begins every text is number 0.
    pub tokens: Range<usize>,
}

/// The words that tokens spell, in order, given the byte of the prompt at which each token begins.
///
/// # Panics
/// If a token begins behind the prompt.
pub(super) fn words(prompt: &str, starts: impl Iterator<Item = usize>) -> Vec<Word> {
    let mut words: Vec<(usize, Word)> = Vec::new();
    for (token, start) in (1..).zip(starts) {
        // The bytes of one character may be several tokens.
        let start = prompt.floor_char_boundary(start);
        let from = prompt[..start].trim_end_matches(|c: char| !c.is_whitespace()).len();
        let end = prompt[start..].find(char::is_whitespace).map_or(prompt.len(), |len| start + len);
        match words.last_mut() {
            Some((last, word)) if *last == from => word.tokens.end = token + 1,
            _ => {
                let word = Word { text: prompt[from..end].to_owned(), tokens: token..token + 1 };
                words.push((from, word));
            }
        }
    }
    words.into_iter().map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_word_belong_together() {
        // "딸기" in three tokens, the second in the middle of its second character.
        let found = words("a  red-ish 딸기, ", [0, 3, 6, 7, 11, 15, 17].into_iter());
        let found: Vec<_> = found.iter().map(|word| (word.text.as_str(), word.tokens.clone())).collect();
        assert_eq!(found, [("a", 1..2), ("red-ish", 2..5), ("딸기,", 5..8)]);
        assert_eq!(words("", std::iter::empty()), []);
    }
}
