//! From words to token ids.
//!
//! A [`Prompt`] is text whose length was checked at the door, before anything works on it; the
//! [`Tokenizer`](tokenizer::Tokenizer) turns it into exactly as many ids as the text encoder reads.

pub mod encoder;
mod special_tokens;
pub mod tokenizer;
mod vocabulary;
pub mod weighted;
mod words;

pub use words::Word;

/// How a prompt is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Syntax {
    /// As it stands, as far as the model's context goes.
    #[default]
    Plain,
    /// With weights and breaks, at any length, as [`weighted`] says.
    A1111,
}

/// The longest prompt, in bytes of UTF-8.
///
/// A text encoder reads some 75 tokens, of a few letters each: 4 KiB is ten times what can have an effect. The limit
/// keeps a request's cost independent of who sends it.
pub const PROMPT_MAX_BYTES: usize = 4096;

/// A prompt of more than [`PROMPT_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the prompt has {got} bytes, expected at most {max}: shorten it", max = PROMPT_MAX_BYTES)]
pub struct PromptTooLong {
    /// Its length in bytes.
    pub got: usize,
}

/// What to draw, or what to avoid: text of at most [`PROMPT_MAX_BYTES`]. Empty text is valid and asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt(String);

impl Prompt {
    /// Takes `text` as it is.
    ///
    /// # Errors
    /// [`PromptTooLong`] if it is longer than [`PROMPT_MAX_BYTES`].
    pub fn new(text: impl Into<String>) -> Result<Self, PromptTooLong> {
        let text = text.into();
        match text.len() <= PROMPT_MAX_BYTES {
            true => Ok(Self(text)),
            false => Err(PromptTooLong { got: text.len() }),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without what the syntax adds to it.
    ///
    /// # Errors
    /// [`WeightError`](weighted::WeightError).
    pub fn words(&self, syntax: Syntax) -> Result<Self, weighted::WeightError> {
        if syntax == Syntax::Plain {
            return Ok(self.clone());
        }
        let words = weighted::parse(&self.0)?.into_iter().map(|part| match part {
            weighted::Part::Text(text, _) => text,
            weighted::Part::Break => " ".to_owned(),
        });
        Ok(Self(words.collect()))
    }
}
