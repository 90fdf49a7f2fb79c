//! What stands between a finished picture and whoever asked for it.
//!
//! A picture is let through when every judge has seen it and found nothing. A gate that cannot judge is found out before
//! anything is drawn, and is no reason to let a picture through.

use std::sync::Arc;

use crate::bundle::{Bundle, Component};
use crate::clip::{Concept, Finding, ImageEncoder, ImageError, SafetyChecker, SafetyError};
use crate::engine::Resources;
use crate::tensor::Rgb8;

/// Why pictures cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The image encoder, or that of the safety checker, cannot be used.
    #[error("pictures cannot be judged, so none is drawn")]
    Encoder(#[from] ImageError),
    /// The safety checker's concepts cannot be used.
    #[error("pictures cannot be judged, so none is drawn")]
    Safety(#[from] SafetyError),
    /// The safety checker has no concepts.
    #[error(
        "pictures cannot be judged, so none is drawn: this model has a safety checker without its concepts.json"
    )]
    NoConcepts,
    /// A concept is no point of the model's space.
    #[error(
        "pictures cannot be judged: `{name}` has an embedding of {got} numbers, and those of this model have {expected}"
    )]
    Width {
        /// The concept.
        name: String,
        /// The width of the model's embeddings.
        expected: usize,
        /// The concept's.
        got: usize,
    },
}

/// A picture that nobody gets to see.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Blocked {
    /// The seed that would make it again.
    pub seed: u64,
    /// What it shows.
    pub concepts: Vec<Finding>,
}

/// All that judges pictures.
pub struct Gate {
    concepts: Option<Arc<Vec<Concept>>>,
    safety_checker: Option<SafetyChecker>,
}

impl Gate {
    /// The gate for pictures of the model in `bundle`: these concepts, and the model's own safety checker if it has one. `None` if
    /// there is neither.
    ///
    /// # Errors
    /// [`GateError`].
    pub fn open(
        bundle: &Arc<Bundle>,
        resources: &Resources,
        concepts: Option<Arc<Vec<Concept>>>,
    ) -> Result<Option<Self>, GateError> {
        let has_checker = bundle.component(Component::SafetyChecker).is_some();
        let safety_checker = if has_checker {
            let file = bundle.file("safety_checker/concepts.json").ok_or(GateError::NoConcepts)?;
            ImageEncoder::of_safety_checker(bundle, resources)?.prepare()?;
            Some(SafetyChecker::from_json(file)?)
        } else {
            None
        };
        let is_open = concepts.is_none() && safety_checker.is_none();
        Ok((!is_open).then_some(Self { concepts, safety_checker }))
    }

    /// The components that judge.
    pub fn components(&self) -> impl Iterator<Item = Component> {
        let encoder = self.concepts.as_ref().map(|_| Component::ImageEncoder);
        encoder.into_iter().chain(self.safety_checker.as_ref().map(|_| Component::SafetyChecker))
    }

    /// What each picture shows; nothing, if it may be seen.
    ///
    /// # Errors
    /// [`GateError`]; no picture may be seen then.
    pub fn judge(
        &self,
        bundle: &Arc<Bundle>,
        resources: &Resources,
        pictures: &[&Rgb8],
    ) -> Result<Vec<Vec<Finding>>, GateError> {
        let mut findings = vec![Vec::new(); pictures.len()];
        if let Some(concepts) = &self.concepts {
            let mut encoder = ImageEncoder::load(bundle, resources)?;
            for (found, picture) in findings.iter_mut().zip(pictures) {
                let embedding = encoder.embed(picture)?;
                for concept in &**concepts {
                    check_width(&concept.name, embedding.len(), concept.embedding.len())?;
                    found.extend(concept.find(&embedding));
                }
            }
        }
        if let Some(checker) = &self.safety_checker {
            let mut encoder = ImageEncoder::of_safety_checker(bundle, resources)?;
            for (found, picture) in findings.iter_mut().zip(pictures) {
                let embedding = encoder.embed(picture)?;
                check_width("the safety checker", embedding.len(), checker.width())?;
                found.extend(checker.find(&embedding));
            }
        }
        Ok(findings)
    }
}

fn check_width(name: &str, expected: usize, got: usize) -> Result<(), GateError> {
    if got == expected { Ok(()) } else { Err(GateError::Width { name: name.to_owned(), expected, got }) }
}
