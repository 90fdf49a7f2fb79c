//! What may not be drawn, as the file of a kiosk's keeper names it.
//!
//! Either lines of a threshold and a sentence, where `#` begins a comment, or a JSON array:
//!
//! ```text
//! 0.27  a photo of a gun
//! [{"name": "gun", "text": "a photo of a gun", "threshold": 0.27}, {"name": "logo", "embedding": [...], "threshold": 0.8}]
//! ```

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::PipelineError;
use super::gate::GateError;
use crate::bundle::Bundle;
use crate::clip::{Concept, ImageEncoder, normalise};
use crate::engine::Resources;
use crate::text::Prompt;
use crate::text::encoder::TextEncoder;

/// A larger file is not one of concepts.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// The concepts of a file, not yet in the space of any model.
#[derive(Debug, Clone)]
pub struct BlockList(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    place: Place,
    threshold: f32,
}

/// Where a concept is.
#[derive(Debug, Clone)]
enum Place {
    Sentence(Prompt),
    Embedding(Vec<f32>),
}

/// An entry of the JSON array.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    text: Option<String>,
    embedding: Option<Vec<f32>>,
    threshold: f32,
}

/// Why a file names no concepts.
#[derive(Debug, thiserror::Error)]
pub enum BlockListError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {reason}")]
    Wrong {
        /// The file.
        path: String,
        /// Where and what.
        reason: String,
    },
}

impl BlockList {
    /// Reads the file.
    ///
    /// # Errors
    /// [`BlockListError`]; a file without a single concept is an error too.
    pub fn read(path: &Path) -> Result<Self, BlockListError> {
        let name = || path.display().to_string();
        let failed = |source| BlockListError::Read { path: name(), source };
        let wrong = |reason| BlockListError::Wrong { path: name(), reason };
        let len = std::fs::metadata(path).map_err(failed)?.len();
        if len > FILE_MAX_BYTES {
            return Err(wrong(format!("{len} bytes are more than the {FILE_MAX_BYTES} that it may have")));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let entries = match text.trim_start().starts_with('[') {
            true => {
                let written: Vec<Written> = serde_json::from_str(text).map_err(|error| error.to_string())?;
                written
                    .into_iter()
                    .enumerate()
                    .map(|(at, entry)| entry.read(at + 1))
                    .collect::<Result<_, _>>()?
            }
            false => lines(text)?,
        };
        if entries.is_empty() {
            return Err("it names nothing to block".into());
        }
        Ok(Self(entries))
    }

    /// Puts the concepts into the space of the model in `bundle`, after making sure that it can judge pictures.
    ///
    /// # Errors
    /// [`PipelineError::Gate`] if it cannot, or a concept is none of its; [`PipelineError::Encode`] if a sentence cannot be embedded.
    pub fn concepts(
        &self,
        bundle: &Arc<Bundle>,
        resources: &Resources,
    ) -> Result<Arc<Vec<Concept>>, PipelineError> {
        ImageEncoder::load(bundle, resources)
            .and_then(|mut encoder| encoder.prepare())
            .map_err(GateError::from)?;
        let mut encoder = None;
        let mut concept = |Entry { name, place, threshold }: &Entry| {
            let mut embedding = match place {
                Place::Embedding(embedding) => embedding.clone(),
                Place::Sentence(sentence) => {
                    if encoder.is_none() {
                        encoder = Some(TextEncoder::load(bundle, resources)?);
                    }
                    encoder.as_mut().expect("it was just loaded").embed(sentence)?
                }
            };
            normalise(&mut embedding);
            Ok::<_, PipelineError>(Concept { name: name.clone(), embedding, threshold: *threshold })
        };
        Ok(Arc::new(self.0.iter().map(&mut concept).collect::<Result<_, _>>()?))
    }
}

fn lines(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (line, at) = (line.trim(), at + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (threshold, sentence) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let threshold = threshold.parse().map_err(|_| {
            format!("line {at}: `{threshold}` is no threshold, write one before the sentence")
        })?;
        let written = Written { name: None, text: Some(sentence.trim().into()), embedding: None, threshold };
        entries.push(written.read(at).map_err(|reason| reason.replacen("entry", "line", 1))?);
    }
    Ok(entries)
}

impl Written {
    fn read(self, at: usize) -> Result<Entry, String> {
        let Self { name, text, embedding, threshold } = self;
        if !(-1.0..=1.0).contains(&threshold) {
            return Err(format!("entry {at}: threshold {threshold} is no similarity, expected -1 to 1"));
        }
        let (own_name, place) = match (text, embedding) {
            (Some(text), None) if !text.is_empty() => {
                let prompt = Prompt::new(text.clone()).map_err(|error| format!("entry {at}: {error}"))?;
                (text, Place::Sentence(prompt))
            }
            (None, Some(embedding)) => {
                let is_one = embedding.iter().all(|x| x.is_finite()) && embedding.iter().any(|&x| x != 0.0);
                if !is_one {
                    return Err(format!("entry {at}: the embedding is empty, zero or not finite"));
                }
                (format!("concept {at}"), Place::Embedding(embedding))
            }
            _ => return Err(format!("entry {at}: expected a text or an embedding")),
        };
        Ok(Entry { name: name.unwrap_or(own_name), place, threshold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_json_name_concepts() {
        let list = BlockList::parse("# weapons\n\n 0.27  a photo of a gun\n-0.5 a knife\n").unwrap();
        let names: Vec<_> = list.0.iter().map(|entry| (&entry.name[..], entry.threshold)).collect();
        assert_eq!(names, [("a photo of a gun", 0.27), ("a knife", -0.5)]);
        let json = r#" [{"name":"gun","text":"a gun","threshold":1}, {"embedding":[1,2],"threshold":0}]"#;
        let list = BlockList::parse(json).unwrap();
        assert_eq!(list.0[0].name, "gun");
        assert!(matches!(&list.0[1].place, Place::Embedding(e) if e == &[1.0, 2.0]));
    }

    #[test]
    fn a_list_that_blocks_nothing_is_refused() {
        for (text, says) in [
            ("", "nothing to block"),
            ("# all is well\n", "nothing to block"),
            ("[]", "nothing to block"),
            ("0.3\n", "line 1: expected a text"),
            ("a gun\n", "line 1: `a` is no threshold"),
            ("0.2 a gun\n7 a knife\n", "line 2: threshold 7"),
            ("nan a gun", "line 1: threshold NaN"),
            ("[{\"text\":\"a\"}]", "threshold"),
            ("[{\"text\":\"a\",\"treshold\":1}]", "treshold"),
            ("[{\"threshold\":0.2}]", "entry 1: expected"),
            ("[{\"threshold\":0.2,\"embedding\":[0,0]}]", "entry 1: the embedding"),
        ] {
            let error = BlockList::parse(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
