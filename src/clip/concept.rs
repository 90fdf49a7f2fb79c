//! Concepts: points of CLIP's space, each with how near a picture may come to it.

use serde::{Deserialize, Serialize};

use super::similarity;

/// Something that may not be seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Concept {
    /// What it is called in an answer.
    pub name: String,
    /// Where it is; of length 1.
    pub embedding: Vec<f32>,
    /// From this similarity on a picture shows it, -1 to 1.
    pub threshold: f32,
}

/// A concept that a picture shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The concept's name.
    pub concept: String,
    /// How similar the picture is to it.
    pub score: f32,
    /// From where on that counts.
    pub threshold: f32,
}

impl Concept {
    /// The finding, if a picture with this embedding shows the concept; an embedding that is no number shows everything.
    ///
    /// # Panics
    /// If the widths of the embeddings differ.
    pub fn find(&self, picture: &[f32]) -> Option<Finding> {
        let (score, threshold) = (similarity(picture, &self.embedding), self.threshold);
        let is_clear = score < threshold;
        (!is_clear).then(|| Finding { concept: self.name.clone(), score, threshold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_what_it_is_near_to() {
        let concept = Concept { name: "up".into(), embedding: vec![0.0, 1.0], threshold: 0.6 };
        assert_eq!(concept.find(&[1.0, 0.0]), None);
        let finding = concept.find(&[0.8, 0.6]).unwrap();
        assert_eq!((&finding.concept[..], finding.threshold), ("up", 0.6));
        assert!(concept.find(&[f32::NAN, 0.0]).is_some(), "what cannot be judged is not let through");
    }
}
