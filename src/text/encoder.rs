//! The text encoder: token ids in, one hidden state per token out.

use std::sync::Arc;

use super::Prompt;
use super::tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::{ShapeError, TextEmbedding};

/// Why a prompt was not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The bundle lacks a file that the tokenizer is made from.
    #[error("this model has no {name}: import it again from a folder that has a tokenizer")]
    NoFile {
        /// The file.
        name: &'static str,
    },
    /// The tokenizer's files cannot be used.
    #[error("the model's tokenizer cannot be used")]
    Tokenizer(#[from] TokenizerError),
    /// The graph cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The graph's output is not one state per token.
    #[error("the text encoder's output does not fit")]
    Output(#[from] ShapeError),
}

/// A prompt's embedding, and what of the prompt did not fit into the model's context.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One hidden state per token.
    pub embedding: TextEmbedding,
    /// The end of the prompt that was dropped, if it was too long.
    pub dropped: Option<String>,
}

/// A tokenizer and the network behind it.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    component: Component,
}

impl TextEncoder {
    /// Loads the text encoder of a bundle.
    ///
    /// # Errors
    /// - [`EncodeError::NoFile`], [`EncodeError::Tokenizer`]: the tokenizer.
    /// - [`EncodeError::Engine`]: the network.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EncodeError> {
        let file = |name| bundle.file(name).ok_or(EncodeError::NoFile { name });
        let component = Component::load(bundle, bundle::Component::TextEncoder, resources)?;
        let config = bundle.component(bundle::Component::TextEncoder).map(|c| &c.config);
        let context = config.and_then(|c| c["max_position_embeddings"].as_u64()).unwrap_or(77);
        let files = TokenizerFiles {
            vocab: file("tokenizer/vocab.json")?,
            merges: file("tokenizer/merges.txt")?,
            config: file("tokenizer/tokenizer_config.json")?,
            special_tokens_map: bundle.file("tokenizer/special_tokens_map.json"),
        };
        let tokenizer = Tokenizer::from_files(files, usize::try_from(context).unwrap_or(usize::MAX))?;
        Ok(Self { tokenizer, component })
    }

    /// Encodes a prompt.
    ///
    /// # Errors
    /// - [`EncodeError::Tokenizer`]: the prompt cannot be split into tokens.
    /// - [`EncodeError::Engine`], [`EncodeError::Output`]: the network fails.
    pub fn encode(&mut self, prompt: &Prompt) -> Result<Encoded, EncodeError> {
        let (states, dropped) = self.run(prompt, "last_hidden_state")?;
        let &[_, tokens, width] = states.shape.as_slice() else {
            return Err(EncodeError::Output(ShapeError::new("text embedding", &states.shape, 0)));
        };
        Ok(Encoded { embedding: TextEmbedding::new(states.values, tokens, width)?, dropped })
    }

    /// The embedding of a whole sentence, in the space that it shares with pictures; of any length.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`]; [`EngineError::MissingOutput`] if the encoder has no projection.
    pub fn embed(&mut self, prompt: &Prompt) -> Result<Vec<f32>, EncodeError> {
        Ok(self.run(prompt, "text_embeds")?.0.values)
    }

    fn run(
        &mut self,
        prompt: &Prompt,
        output: &'static str,
    ) -> Result<(NamedTensor, Option<String>), EncodeError> {
        let tokens = self.tokenizer.encode(prompt)?;
        let ids = tokens.ids.iter().map(|&id| id as f32).collect();
        let input = NamedTensor::new("input_ids", &[1, tokens.ids.len()], ids);
        Ok((self.component.run_for(output, &[input])?, tokens.dropped))
    }
}
