//! A text encoder: token ids in, one hidden state per token out.

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
    states: String,
}

/// The files of a tokenizer.
struct FileNames {
    vocab: &'static str,
    merges: &'static str,
    config: &'static str,
    special_tokens_map: &'static str,
}

const FIRST: FileNames = FileNames {
    vocab: "tokenizer/vocab.json",
    merges: "tokenizer/merges.txt",
    config: "tokenizer/tokenizer_config.json",
    special_tokens_map: "tokenizer/special_tokens_map.json",
};
const SECOND: FileNames = FileNames {
    vocab: "tokenizer_2/vocab.json",
    merges: "tokenizer_2/merges.txt",
    config: "tokenizer_2/tokenizer_config.json",
    special_tokens_map: "tokenizer_2/special_tokens_map.json",
};

/// What is taken of an encoder that has to name it: the embedding of the whole sentence.
const POOLED: &str = "text_embeds";

impl TextEncoder {
    /// Loads the text encoder of a bundle that embeds sentences.
    ///
    /// # Errors
    /// - [`EncodeError::NoFile`], [`EncodeError::Tokenizer`]: the tokenizer.
    /// - [`EncodeError::Engine`]: the network.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EncodeError> {
        Self::load_one(bundle, bundle::Component::TextEncoder, resources)
    }

    /// Loads one of the text encoders of a bundle. A model with two takes from each what goes into its last layer, others take
    /// what comes out of it, normalised.
    ///
    /// # Errors
    /// As [`TextEncoder::load`].
    pub fn load_one(
        bundle: &Arc<Bundle>,
        kind: bundle::Component,
        resources: &Resources,
    ) -> Result<Self, EncodeError> {
        let file = |name| bundle.file(name).ok_or(EncodeError::NoFile { name });
        let names = if kind == bundle::Component::TextEncoder2 { SECOND } else { FIRST };
        let component = Component::load(bundle, kind, resources)?;
        let config = bundle.component(kind).map(|c| &c.config);
        let number = |key: &str| config.and_then(|c| c[key].as_u64());
        let context = number("max_position_embeddings").unwrap_or(77);
        let files = TokenizerFiles {
            vocab: file(names.vocab)?,
            merges: file(names.merges)?,
            config: file(names.config)?,
            special_tokens_map: bundle.file(names.special_tokens_map),
        };
        let tokenizer = Tokenizer::from_files(files, usize::try_from(context).unwrap_or(usize::MAX))?;
        let states = match bundle.component(bundle::Component::TextEncoder2) {
            Some(_) => {
                let layers = number("num_hidden_layers").unwrap_or(12);
                format!("hidden_states.{}", layers.saturating_sub(1))
            }
            None => "last_hidden_state".into(),
        };
        Ok(Self { tokenizer, component, states })
    }

    /// Encodes a prompt.
    ///
    /// # Errors
    /// - [`EncodeError::Tokenizer`]: the prompt cannot be split into tokens.
    /// - [`EncodeError::Engine`], [`EncodeError::Output`]: the network fails.
    pub fn encode(&mut self, prompt: &Prompt) -> Result<Encoded, EncodeError> {
        let (outputs, dropped) = self.run(prompt)?;
        let pooled = outputs.iter().find(|output| output.name == POOLED).map(|output| output.values.clone());
        let states = self.output(outputs, &self.states)?;
        let &[_, tokens, width] = states.shape.as_slice() else {
            return Err(EncodeError::Output(ShapeError::new("text embedding", &states.shape, 0)));
        };
        let embedding = TextEmbedding::new(states.values, tokens, width)?;
        Ok(Encoded { embedding: embedding.with_pooled(pooled.unwrap_or_default()), dropped })
    }

    /// The embedding of a whole sentence, in the space that it shares with pictures; of any length.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`]; [`EngineError::MissingOutput`] if the encoder has no projection.
    pub fn embed(&mut self, prompt: &Prompt) -> Result<Vec<f32>, EncodeError> {
        let (outputs, _) = self.run(prompt)?;
        Ok(self.output(outputs, POOLED)?.values)
    }

    fn run(&mut self, prompt: &Prompt) -> Result<(Vec<NamedTensor>, Option<String>), EncodeError> {
        let tokens = self.tokenizer.encode(prompt)?;
        let ids = tokens.ids.iter().map(|&id| id as f32).collect();
        let input = NamedTensor::new("input_ids", &[1, tokens.ids.len()], ids);
        Ok((self.component.run(&[input])?, tokens.dropped))
    }

    fn output(&self, outputs: Vec<NamedTensor>, name: &str) -> Result<NamedTensor, EngineError> {
        let missing =
            || EngineError::MissingOutput { component: self.component.kind(), name: name.to_owned() };
        outputs.into_iter().find(|output| output.name == name).ok_or_else(missing)
    }
}
