//! Stable Diffusion's safety checker: concepts that block a picture, and some that make it stricter with the others.
//!
//! ```text
//! strictness = 0.01 if similarity - threshold > 0 for any special concept, else 0
//! a concept is found if similarity - threshold + strictness > 0, to three decimals
//! ```
//! An earlier special concept makes it stricter with later ones too, but that changes nothing for the concepts.
//!
//! Source: diffusers 0.42.1, `stable_diffusion/safety_checker.py`.

use serde::Deserialize;

use super::concept::{Concept, Finding};
use super::{normalise, similarity};

/// What a special concept adds to the scores of the others.
const STRICTNESS: f32 = 0.01;

/// Why the file with the concepts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SafetyError {
    /// It is not JSON with the four lists.
    #[error("safety_checker/concepts.json cannot be read")]
    Json(#[from] serde_json::Error),
    /// The lists do not go together, or hold what is no number.
    #[error("safety_checker/concepts.json: {0}")]
    Lists(&'static str),
}

/// The concepts of a safety checker.
#[derive(Debug, Clone)]
pub struct SafetyChecker {
    concepts: Vec<Concept>,
    special: Vec<Concept>,
}

/// The file, by the names of the checker's weights.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    concept_embeds: Vec<Vec<f32>>,
    concept_embeds_weights: Vec<f32>,
    special_care_embeds: Vec<Vec<f32>>,
    special_care_embeds_weights: Vec<f32>,
}

impl SafetyChecker {
    /// Reads the concepts.
    ///
    /// # Errors
    /// [`SafetyError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SafetyError> {
        let lists: Lists = serde_json::from_slice(bytes)?;
        let concepts = concepts("concept", lists.concept_embeds, &lists.concept_embeds_weights)?;
        let special =
            self::concepts("special concept", lists.special_care_embeds, &lists.special_care_embeds_weights)?;
        let width = concepts.first().map(|concept| concept.embedding.len());
        if width.is_none_or(|width| width == 0) {
            return Err(SafetyError::Lists("there is no concept"));
        }
        if concepts.iter().chain(&special).any(|concept| Some(concept.embedding.len()) != width) {
            return Err(SafetyError::Lists("the embeddings are not of one width"));
        }
        Ok(Self { concepts, special })
    }

    /// The width of the embeddings.
    pub fn width(&self) -> usize {
        self.concepts[0].embedding.len()
    }

    /// What a picture with this embedding shows.
    ///
    /// # Panics
    /// If the embedding is not as wide as the concepts'.
    pub fn find(&self, picture: &[f32]) -> Vec<Finding> {
        let is_special = self.special.iter().any(|special| exceeds(picture, special, 0.0));
        let strictness = if is_special { STRICTNESS } else { 0.0 };
        let found = self.concepts.iter().filter(|concept| exceeds(picture, concept, strictness));
        let finding = |concept: &Concept| Finding {
            concept: concept.name.clone(),
            score: similarity(picture, &concept.embedding),
            threshold: concept.threshold - strictness,
        };
        found.map(finding).collect()
    }
}

fn concepts(kind: &str, embeddings: Vec<Vec<f32>>, thresholds: &[f32]) -> Result<Vec<Concept>, SafetyError> {
    if embeddings.len() != thresholds.len() {
        return Err(SafetyError::Lists("there is not one weight for each embedding"));
    }
    if embeddings.iter().flatten().chain(thresholds).any(|x| !x.is_finite()) {
        return Err(SafetyError::Lists("a value is not finite"));
    }
    let concept = |(at, (mut embedding, &threshold)): (usize, (Vec<f32>, &f32))| {
        normalise(&mut embedding);
        Concept { name: format!("safety checker's {kind} {}", at + 1), embedding, threshold }
    };
    Ok(embeddings.into_iter().zip(thresholds).enumerate().map(concept).collect())
}

/// Whether the score of a concept, to three decimals, is above 0; that of an embedding that is no number is.
fn exceeds(picture: &[f32], concept: &Concept, strictness: f32) -> bool {
    let score = similarity(picture, &concept.embedding) - concept.threshold + strictness;
    let is_clear = (score * 1000.0).round_ties_even() <= 0.0;
    !is_clear
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checker(special_threshold: f32) -> SafetyChecker {
        let json = format!(
            r#"{{"concept_embeds":[[2,0],[0,3]],"concept_embeds_weights":[0.5,0.605],
            "special_care_embeds":[[0,1]],"special_care_embeds_weights":[{special_threshold}]}}"#
        );
        SafetyChecker::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn special_concepts_make_it_stricter() {
        let found = |special, picture: &[f32]| -> Vec<String> {
            checker(special).find(picture).into_iter().map(|finding| finding.concept).collect()
        };
        assert_eq!(found(0.9, &[0.8, 0.6]), ["safety checker's concept 1"]);
        assert_eq!(found(0.1, &[0.8, 0.6]).len(), 2, "0.6 - 0.605 + 0.01");
        assert!(found(0.9, &[-1.0, 0.0]).is_empty());
        assert_eq!(found(0.9, &[f32::NAN; 2]).len(), 2, "what cannot be judged is not let through");
    }

    #[test]
    fn lists_have_to_go_together() {
        let refuse = |json: &str| SafetyChecker::from_json(json.as_bytes()).unwrap_err().to_string();
        let lists = |a: &str, b: &str| {
            format!(
                r#"{{"concept_embeds":{a},"concept_embeds_weights":{b},"special_care_embeds":[],"special_care_embeds_weights":[]}}"#
            )
        };
        assert!(refuse("{}").contains("cannot be read"));
        assert!(refuse(&lists("[]", "[]")).contains("no concept"));
        assert!(refuse(&lists("[[1]]", "[]")).contains("one weight"));
        assert!(refuse(&lists("[[1],[1,2]]", "[0,0]")).contains("width"));
    }
}
