//! A text encoder: token ids in, one hidden state per token out.

use std::sync::Arc;

use super::tokenizer::{Tokenizer, TokenizerError, TokenizerFiles, Tokens};
use super::weighted::{self, Chunk, WeightError};
use super::{Prompt, Syntax, Word};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::{Sentence, ShapeError, TextEmbedding};

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

    /// The end of the prompt that was dropped, if it was too long.
    pub fn dropped(&self) -> Option<&str> {
        self.dropped.as_deref()
    }
}

/// The output with a state for each token, normalised.
const LAST_STATES: &str = "last_hidden_state";

/// A tokenizer and the network behind it.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    component: Component,
    states: States,
}

/// Which states of its tokens are taken.
enum States {
    /// Those of the last layer, normalised.
    Last,
    /// What goes into this layer, counted from 0.
    Before(usize),
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

const OF_PRIOR: FileNames = FileNames {
    vocab: "prior_tokenizer/vocab.json",
    merges: "prior_tokenizer/merges.txt",
    config: "prior_tokenizer/tokenizer_config.json",
    special_tokens_map: "prior_tokenizer/special_tokens_map.json",
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
        let names = match kind {
            bundle::Component::TextEncoder2 => SECOND,
            bundle::Component::PriorTextEncoder => OF_PRIOR,
            _ => FIRST,
        };
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
        let layers = number("num_hidden_layers").and_then(|n| usize::try_from(n).ok()).unwrap_or(12);
        let states = match bundle.component(bundle::Component::TextEncoder2) {
            Some(_) => States::Before(layers.saturating_sub(1)),
            None => States::Last,
        };
        Ok(Self { tokenizer, component, states })
    }

    /// The same encoder without its last layers for the states; a pooled embedding stays that of all layers. A model with one
    /// encoder gets what these layers would read, normalised, others get it as it is.
    ///
    /// # Errors
    /// [`EngineError::Layers`] if there are not so many.
    pub fn without_last_layers(self, count: usize) -> Result<Self, EngineError> {
        match self.states {
            States::Last => {
                Ok(Self { component: self.component.without_last_layers(LAST_STATES, count)?, ..self })
            }
            States::Before(layer) => {
                let component = self.component.kind();
                let refused = EngineError::Layers { component, wanted: count, got: layer };
                let layer = layer.checked_sub(count).ok_or(refused)?;
                Ok(Self { states: States::Before(layer), ..self })
            }
        }
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

    /// The words of a prompt in plain syntax, and which of the encoded tokens are theirs.
    ///
    /// # Errors
    /// [`EncodeError::Tokenizer`].
    pub fn words(&self, prompt: &Prompt) -> Result<Vec<Word>, EncodeError> {
        Ok(self.tokenizer.words(prompt)?)
    }

    /// Encodes chunks one after the other, and empty ones behind them until there are `count`. The pooled embedding is the first
    /// chunk's, without its weights.
    ///
    /// # Errors
    /// [`EncodeError::Engine`], [`EncodeError::Output`].
    pub fn encode(&mut self, chunks: &Chunks, count: usize) -> Result<TextEmbedding, EncodeError> {
        let empty = Chunk::new(&[], &[], &self.tokenizer);
        let (mut values, mut tokens, mut width, mut pooled) = (Vec::new(), 0, 0, None);
        let padding = std::iter::repeat_n(&empty, count.saturating_sub(chunks.count()));
        for chunk in chunks.chunks.iter().chain(padding) {
            let outputs = self.run(chunk.ids())?;
            let embedding = outputs.iter().find(|output| output.name == POOLED);
            pooled.get_or_insert_with(|| embedding.map_or(Vec::new(), |output| output.values.clone()));
            let mut states = self.component.pick(outputs, &self.states.output())?;
            let &[1, chunk_tokens, chunk_width] = states.shape.as_slice() else {
                return Err(EncodeError::Output(ShapeError::new("text embedding", &states.shape, 0)));
            };
            chunk.weigh(&mut states.values, chunk_width);
            values.extend(states.values);
            (tokens, width) = (tokens + chunk_tokens, chunk_width);
        }
        Ok(TextEmbedding::new(values, tokens, width)?.with_pooled(pooled.unwrap_or_default()))
    }

    /// The embedding of a whole sentence, in the space that it shares with pictures; of any length.
    ///
    /// # Errors
    /// [`EncodeError::Tokenizer`], [`EncodeError::Engine`]; among the latter [`EngineError::MissingOutput`] if the encoder has no projection.
    pub fn embed(&mut self, prompt: &Prompt) -> Result<Vec<f32>, EncodeError> {
        let tokens = self.tokenizer.encode(prompt)?;
        let outputs = self.run(&tokens.ids)?;
        Ok(self.component.pick(outputs, POOLED)?.values)
    }

    /// All that a prior is told of a sentence, and the end of it that did not fit.
    ///
    /// # Errors
    /// As [`TextEncoder::embed`]; [`EncodeError::Output`].
    pub fn read(&mut self, prompt: &Prompt) -> Result<(Sentence, Option<String>), EncodeError> {
        let Tokens { ids, count: tokens, dropped } = self.tokenizer.encode(prompt)?;
        let outputs = self.run(&ids)?;
        let pooled = self.component.pick(outputs.clone(), POOLED)?.values;
        let states = self.component.pick(outputs, LAST_STATES)?;
        let width = states.values.len() / ids.len();
        let embedding = TextEmbedding::new(states.values, ids.len(), width)?.with_pooled(pooled);
        Ok((Sentence { embedding, tokens }, dropped))
    }

    fn run(&mut self, ids: &[u32]) -> Result<Vec<NamedTensor>, EngineError> {
        let values = ids.iter().map(|&id| id as f32).collect();
        self.component.run(&[NamedTensor::new("input_ids", &[1, ids.len()], values)])
    }
}

impl States {
    /// The name of the output.
    fn output(&self) -> String {
        match self {
            Self::Last => LAST_STATES.to_owned(),
            Self::Before(layer) => format!("hidden_states.{layer}"),
        }
    }
}
