//! CLIP's tokenizer: byte-level byte-pair encoding.
//!
//! ```text
//! text -> NFC, runs of white space to one space, lower case
//!      -> pieces: contractions, runs of letters, single digits, runs of anything else but white space
//!      -> each piece as UTF-8, a printable character per byte, `</w>` after the last
//!      -> the most urgent pair of neighbours merged, until no pair is in the list
//!      -> begin, ids, end, cut to the context with the end kept, filled with the pad id
//! ```
//!
//! The steps and the order of the list decide every id, and an encoder given other ids than it was trained with
//! draws something else. The `tokenizers` crate does the work, put together as transformers puts it together.
//!
//! Source: transformers 5.23, `tokenization_clip.py`; Radford et al. 2021, arXiv:2103.00020.

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::Prompt;
use super::special_tokens::SpecialTokens;
use super::vocabulary::{END_OF_WORD, read_merges, read_vocab};
use super::words::{Word, words};

/// The longest context: what every published CLIP text encoder reads.
pub const MAX_CONTEXT: usize = 77;

/// The shortest context: begin, one token, end.
pub const MIN_CONTEXT: usize = 3;

/// How CLIP cuts a text into pieces. What matches no alternative, white space, is dropped.
///
/// Source: transformers 5.23, `tokenization_clip.py`.
const PIECES: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Why a tokenizer could not be made, or could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is not JSON, or not of the expected shape.
    #[error("{file} cannot be read")]
    Json {
        /// The file.
        file: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// An id is used twice, or is not below the number of tokens.
    #[error("vocab.json: token {token:?} has id {id}, expected each of 0 to {size} (exclusive) once")]
    VocabId {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// The number of tokens.
        size: usize,
    },
    /// One of the 256 bytes has no token of its own.
    #[error("vocab.json: no token {token:?}, which stands for a byte: some texts could not be spelled")]
    MissingByte {
        /// The token that is missing.
        token: String,
    },
    /// A special token is not in the vocabulary.
    #[error("vocab.json: no token {token:?}, which the tokenizer's configuration names")]
    MissingSpecial {
        /// The token that is missing.
        token: String,
    },
    /// The configuration gives a token another id than the vocabulary does.
    #[error("tokenizer_config.json: `added_tokens_decoder` gives {token:?} id {id}, vocab.json another")]
    AddedTokenId {
        /// The token.
        token: String,
        /// The id in the configuration.
        id: u32,
    },
    /// The merges are not text.
    #[error("merges.txt is not UTF-8")]
    MergesUtf8 {
        /// Where it stops being UTF-8.
        source: std::str::Utf8Error,
    },
    /// A line of the merges is not two tokens.
    #[error("merges.txt line {line}: expected two tokens with one space between")]
    MergeLine {
        /// The line, from 1.
        line: usize,
    },
    /// A merge takes or makes a token that is not in the vocabulary.
    #[error("merges.txt line {line}: token {token:?} is not in vocab.json")]
    MergeToken {
        /// The line, from 1.
        line: usize,
        /// The token.
        token: String,
    },
    /// The context is too short or too long.
    #[error("a context of {got} tokens, expected {MIN_CONTEXT} to {MAX_CONTEXT}")]
    Context {
        /// The context asked for.
        got: usize,
    },
    /// The library failed.
    #[error("the tokenizer failed")]
    Library(#[source] tokenizers::Error),
}

/// The bytes of a tokenizer's files.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`.
    pub vocab: &'a [u8],
    /// `merges.txt`.
    pub merges: &'a [u8],
    /// `tokenizer_config.json`.
    pub config: &'a [u8],
    /// `special_tokens_map.json`, which newer exports leave out.
    pub special_tokens_map: Option<&'a [u8]>,
}

/// A tokenized prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// As many ids as the context, each below [`Tokenizer::vocab_size`].
    pub ids: heapless::Vec<u32, MAX_CONTEXT>,
    /// How many of them stand before the padding.
    pub count: usize,
    /// The end of the prompt, from the first token that did not fit.
    pub dropped: Option<String>,
}

/// A CLIP tokenizer for a text encoder's context.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    context: usize,
    bos: u32,
    eos: u32,
    pad: u32,
}

impl Tokenizer {
    /// A tokenizer from its files, for texts of `context` tokens, the first and the last of which are added.
    ///
    /// # Errors
    /// - [`TokenizerError::Context`] if `context` is not in [`MIN_CONTEXT`]`..=`[`MAX_CONTEXT`].
    /// - [`TokenizerError::Json`] and [`TokenizerError::MergesUtf8`] if a file is not of its format.
    /// - [`TokenizerError::VocabId`] if the ids are not `0..len`, each once.
    /// - [`TokenizerError::MissingByte`] if a byte has no token.
    /// - [`TokenizerError::MissingSpecial`] and [`TokenizerError::AddedTokenId`] if a special token is not in the
    ///   vocabulary, or has another id there.
    /// - [`TokenizerError::MergeLine`] and [`TokenizerError::MergeToken`] if a merge is malformed or unknown.
    /// - [`TokenizerError::Library`] if the `tokenizers` crate refuses what passed all this.
    pub fn from_files(files: TokenizerFiles<'_>, context: usize) -> Result<Self, TokenizerError> {
        if !(MIN_CONTEXT..=MAX_CONTEXT).contains(&context) {
            return Err(TokenizerError::Context { got: context });
        }
        let vocab = read_vocab(files.vocab)?;
        let merges = read_merges(files.merges, &vocab)?;
        let special = SpecialTokens::read(files.config, files.special_tokens_map, &vocab)?;
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .unk_token(special.unk)
            .end_of_word_suffix(END_OF_WORD.to_owned())
            .cache_capacity(0)
            .build()
            .map_err(TokenizerError::Library)?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_normalizer(Some(normalizer()?));
        inner.with_pre_tokenizer(Some(pre_tokenizer()?));
        inner.add_tokens(&special.added);
        Ok(Self { inner, context, bos: special.bos, eos: special.eos, pad: special.pad })
    }

    /// The number of tokens: every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The number of ids that a prompt becomes.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The ids of a prompt: begin, its tokens as far as they fit, end, and padding up to the context.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the `tokenizers` crate fails.
    pub fn encode(&self, prompt: &Prompt) -> Result<Tokens, TokenizerError> {
        let encoding = self.inner.encode(prompt.as_str(), false).map_err(TokenizerError::Library)?;
        let ids = self.framed(encoding.get_ids());
        let count = encoding.get_ids().len().min(self.room()) + 2;
        let dropped = encoding.get_offsets().get(self.room()).map(|&(start, _)| rest(prompt.as_str(), start));
        Ok(Tokens { ids, count, dropped })
    }

    /// The words of a prompt, as far as their tokens fit.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the `tokenizers` crate fails.
    pub fn words(&self, prompt: &Prompt) -> Result<Vec<Word>, TokenizerError> {
        let encoding = self.inner.encode(prompt.as_str(), false).map_err(TokenizerError::Library)?;
        let starts = encoding.get_offsets().iter().map(|&(start, _)| start);
        Ok(words(prompt.as_str(), starts.take(self.room())))
    }

    /// How many tokens fit between begin and end.
    pub(super) fn room(&self) -> usize {
        self.context - 2
    }

    /// The ids of a text, all of them, without begin and end.
    ///
    /// # Errors
    /// [`TokenizerError::Library`] if the `tokenizers` crate fails.
    pub(super) fn ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.inner.encode(text, false).map_err(TokenizerError::Library)?.get_ids().to_vec())
    }

    /// Begin, these ids as far as they fit, end, and padding up to the context.
    pub(super) fn framed(&self, ids: &[u32]) -> heapless::Vec<u32, MAX_CONTEXT> {
        let ids = ids.iter().copied().take(self.room());
        let ids = std::iter::once(self.bos).chain(ids).chain([self.eos]);
        ids.chain(std::iter::repeat(self.pad)).take(self.context).collect()
    }
}

/// The text from byte `start`, or from the character that it lies in: the bytes of one character may be several tokens.
fn rest(text: &str, start: usize) -> String {
    text[text.floor_char_boundary(start)..].trim().to_owned()
}

fn normalizer() -> Result<Normalizers, TokenizerError> {
    let white_space =
        Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(TokenizerError::Library)?;
    Ok(Normalizers::new(vec![NFC.into(), white_space.into(), Lowercase.into()]))
}

fn pre_tokenizer() -> Result<PreTokenizers, TokenizerError> {
    let pieces = Split::new(SplitPattern::Regex(PIECES.to_owned()), SplitDelimiterBehavior::Removed, true)
        .map_err(TokenizerError::Library)?;
    // The byte level's own splitting stays on: it cuts some pieces again, and transformers leaves it on.
    let bytes = ByteLevel::default().add_prefix_space(false);
    Ok(PreTokenizers::new(vec![pieces.into(), bytes.into()]))
}
