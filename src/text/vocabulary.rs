//! `vocab.json` and `merges.txt`, checked before anything indexes with them.
//!
//! The ids of a vocabulary end up as rows of the text encoder's embedding table, so they have to be `0..len`, each
//! once. The 256 bytes have to be there, in the middle of a word and at its end: then every text has tokens.

use tokenizers::models::bpe::{Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::tokenizer::TokenizerError;

/// What CLIP appends to the last token of a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// Reads a `vocab.json`: an object of token and id.
pub(super) fn read_vocab(bytes: &[u8]) -> Result<Vocab, TokenizerError> {
    let vocab: Vocab = serde_json::from_slice(bytes)
        .map_err(|source| TokenizerError::Json { file: "vocab.json", source })?;
    check_ids(&vocab)?;
    check_bytes(&vocab)?;
    Ok(vocab)
}

fn check_ids(vocab: &Vocab) -> Result<(), TokenizerError> {
    let mut seen = vec![false; vocab.len()];
    for (token, &id) in vocab {
        match seen.get_mut(id as usize) {
            Some(slot) if !*slot => *slot = true,
            _ => return Err(TokenizerError::VocabId { token: token.clone(), id, size: vocab.len() }),
        }
    }
    Ok(())
}

fn check_bytes(vocab: &Vocab) -> Result<(), TokenizerError> {
    let tokens =
        ByteLevel::alphabet().into_iter().flat_map(|byte| [byte.to_string(), format!("{byte}{END_OF_WORD}")]);
    match tokens.into_iter().find(|token| !vocab.contains_key(token)) {
        Some(token) => Err(TokenizerError::MissingByte { token }),
        None => Ok(()),
    }
}

/// Reads a `merges.txt`: a pair of tokens per line, the most urgent first. Lines that begin with `#version` are skipped.
pub(super) fn read_merges(bytes: &[u8], vocab: &Vocab) -> Result<Merges, TokenizerError> {
    let text = str::from_utf8(bytes).map_err(|source| TokenizerError::MergesUtf8 { source })?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version"));
    lines.map(|(i, line)| read_merge(i + 1, line, vocab)).collect()
}

fn read_merge(number: usize, line: &str, vocab: &Vocab) -> Result<(String, String), TokenizerError> {
    let (first, second) = match line.split_once(' ') {
        Some((first, second)) if !second.contains(' ') => (first, second),
        _ => return Err(TokenizerError::MergeLine { line: number }),
    };
    for token in [first, second, &format!("{first}{second}")] {
        if !vocab.contains_key(token) {
            return Err(TokenizerError::MergeToken { line: number, token: token.to_owned() });
        }
    }
    Ok((first.to_owned(), second.to_owned()))
}
