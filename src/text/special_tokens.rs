//! The tokens with a meaning of their own, from `tokenizer_config.json` and `special_tokens_map.json`.
//!
//! They say where a text begins and ends and what fills the rest. Stable Diffusion 1 fills with the end token; 2 and
//! the second tokenizer of XL fill with `!`, whose id is 0. A prompt that spells such a token out gets its id, which
//! is why a `!` in a prompt means something else to those two.
//!
//! transformers reads the two files like this, and so does this module: the map file overrides the configuration,
//! unless that has `added_tokens_decoder`, whose entries then come first; what neither says has CLIP's default.
//!
//! Source: transformers 5.23, `tokenization_utils_base.py` and `tokenization_utils_tokenizers.py`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

use super::tokenizer::TokenizerError;

const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The special tokens of a tokenizer, all of them in its vocabulary.
pub(super) struct SpecialTokens {
    /// The id before every text.
    pub(super) bos: u32,
    /// The id after every text.
    pub(super) eos: u32,
    /// The id that fills the rest of the context.
    pub(super) pad: u32,
    /// The token for what has none.
    pub(super) unk: String,
    /// The tokens to look for in a text, each once.
    pub(super) added: Vec<AddedToken>,
}

/// The keys that matter, of either file.
#[derive(Deserialize)]
struct SpecialTokensFile {
    bos_token: Option<Spelling>,
    eos_token: Option<Spelling>,
    unk_token: Option<Spelling>,
    pad_token: Option<Spelling>,
    added_tokens_decoder: Option<BTreeMap<u32, Flags>>,
}

/// A token as the files spell it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Content(String),
    Flags(Flags),
}

/// A token and how it is looked for in a text.
#[derive(Deserialize)]
struct Flags {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// By default, whatever `special` is not.
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl SpecialTokens {
    /// Reads both files; `map` may be missing.
    pub(super) fn read(config: &[u8], map: Option<&[u8]>, vocab: &Vocab) -> Result<Self, TokenizerError> {
        let mut file = SpecialTokensFile::read(config, "tokenizer_config.json")?;
        if let (None, Some(map)) = (&file.added_tokens_decoder, map) {
            file.override_with(SpecialTokensFile::read(map, "special_tokens_map.json")?);
        }
        let mut added = Vec::new();
        for (id, flags) in file.added_tokens_decoder.into_iter().flatten() {
            let token = flags.into_token();
            if id_of(&token, vocab)? != id {
                return Err(TokenizerError::AddedTokenId { token: token.content, id });
            }
            added.push(token);
        }
        let bos = into_named_token(file.bos_token, BEGIN);
        let [eos, unk, pad] =
            [file.eos_token, file.unk_token, file.pad_token].map(|t| into_named_token(t, END));
        let ids = (id_of(&bos, vocab)?, id_of(&eos, vocab)?, id_of(&pad, vocab)?);
        id_of(&unk, vocab)?;
        // Of two named tokens with the same content the later one's flags count.
        for token in [&pad, &unk, &eos, &bos] {
            if added.iter().all(|other| other.content != token.content) {
                added.push(token.clone());
            }
        }
        Ok(Self { bos: ids.0, eos: ids.1, pad: ids.2, unk: unk.content, added })
    }
}

impl SpecialTokensFile {
    fn read(bytes: &[u8], file: &'static str) -> Result<Self, TokenizerError> {
        serde_json::from_slice(bytes).map_err(|source| TokenizerError::Json { file, source })
    }

    fn override_with(&mut self, map: Self) {
        self.bos_token = map.bos_token.or(self.bos_token.take());
        self.eos_token = map.eos_token.or(self.eos_token.take());
        self.unk_token = map.unk_token.or(self.unk_token.take());
        self.pad_token = map.pad_token.or(self.pad_token.take());
    }
}

impl Flags {
    fn into_token(self) -> AddedToken {
        AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!self.special))
    }
}

/// A named token is special, whatever its flags say; one without flags is looked for as it is spelled.
fn into_named_token(spelling: Option<Spelling>, default: &str) -> AddedToken {
    match spelling {
        None => AddedToken::from(default, true),
        Some(Spelling::Content(content)) => AddedToken::from(content, true),
        Some(Spelling::Flags(flags)) => {
            let normalized = flags.normalized.unwrap_or(false);
            flags.into_token().normalized(normalized).special(true)
        }
    }
}

fn id_of(token: &AddedToken, vocab: &Vocab) -> Result<u32, TokenizerError> {
    let id = vocab.get(&token.content).copied();
    id.ok_or_else(|| TokenizerError::MissingSpecial { token: token.content.clone() })
}
