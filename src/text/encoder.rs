//! The text encoder: token ids in, one hidden state per token out.

use std::sync::Arc;

use super::tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
use super::weighted::{self, Chunk, WeightError};
use super::{Prompt, Syntax};
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
    /// A weight in the prompt is none.
    #[error(transparent)]
    Weight(#[from] WeightError),
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

/// A prompt that was cut into what is encoded together.
pub struct Chunks {
    chunks: Vec<Chunk>,
    dropped: Option<String>,
}

impl Chunks {
    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }
}

/// The output with a state for each token.
const STATES: &str = "last_hidden_state";

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

    /// The same encoder without its last layers: the states that these would read are normalised and given out.
    ///
    /// # Errors
    /// [`EngineError::Layers`] if there are not so many.
    pub fn without_last_layers(self, count: usize) -> Result<Self, EngineError> {
        Ok(Self { component: self.component.without_last_layers(STATES, count)?, ..self })
    }

    /// Cuts a prompt into chunks: in plain syntax one, of what fits into the model's context.
    ///
    /// # Errors
    /// [`EncodeError::Weight`], [`EncodeError::Tokenizer`].
    pub fn chunks(&self, prompt: &Prompt, syntax: Syntax) -> Result<Chunks, EncodeError> {
        match syntax {
            Syntax::Plain => {
                let tokens = self.tokenizer.encode(prompt)?;
                Ok(Chunks { chunks: vec![Chunk::framed(&tokens.ids)], dropped: tokens.dropped })
            }
            Syntax::A1111 => {
                let parts = weighted::parse(prompt.as_str())?;
                Ok(Chunks { chunks: weighted::chunks(&parts, &self.tokenizer)?, dropped: None })
            }
        }
    }

    /// Encodes chunks one after the other, and empty ones behind them until there are `count`.
    ///
    /// # Errors
    /// [`EncodeError::Tokenizer`], [`EncodeError::Engine`], [`EncodeError::Output`].
    pub fn encode(&mut self, chunks: &Chunks, count: usize) -> Result<Encoded, EncodeError> {
        let empty = Chunk::new(&[], &[], &self.tokenizer);
        let (mut values, mut tokens, mut width) = (Vec::new(), 0, 0);
        let padding = std::iter::repeat_n(&empty, count.saturating_sub(chunks.count()));
        for chunk in chunks.chunks.iter().chain(padding) {
            let mut states = self.run(chunk.ids(), STATES)?;
            let &[1, chunk_tokens, chunk_width] = states.shape.as_slice() else {
                return Err(EncodeError::Output(ShapeError::new("text embedding", &states.shape, 0)));
            };
            chunk.weigh(&mut states.values, chunk_width);
            values.extend(states.values);
            (tokens, width) = (tokens + chunk_tokens, chunk_width);
        }
        let dropped = chunks.dropped.clone();
        Ok(Encoded { embedding: TextEmbedding::new(values, tokens, width)?, dropped })
    }

    /// The embedding of a whole sentence, in the space that it shares with pictures; of any length.
    ///
    /// # Errors
    /// [`EncodeError::Tokenizer`], [`EncodeError::Engine`]; among the latter [`EngineError::MissingOutput`] if the encoder has no projection.
    pub fn embed(&mut self, prompt: &Prompt) -> Result<Vec<f32>, EncodeError> {
        let tokens = self.tokenizer.encode(prompt)?;
        Ok(self.run(&tokens.ids, "text_embeds")?.values)
    }

    fn run(&mut self, ids: &[u32], output: &'static str) -> Result<NamedTensor, EncodeError> {
        let values = ids.iter().map(|&id| id as f32).collect();
        let input = NamedTensor::new("input_ids", &[1, ids.len()], values);
        Ok(self.component.run_for(output, &[input])?)
    }
}
