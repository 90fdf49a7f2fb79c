//! How long pictures take here, as measured.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::output;
use crate::protocol::Offer;

/// How much a new measurement counts.
const FRESH: f64 = 0.3;

/// What decides how long a step takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kind {
    /// The model's name.
    pub model: String,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// Whether a step takes two runs of the network.
    pub guided: bool,
}

impl Kind {
    fn area(&self) -> f64 {
        (self.width * self.height) as f64
    }
}

/// Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// For each step.
    pub per_step: f64,
    /// For everything else: loading, the prompt, decoding.
    pub beside: f64,
}

impl Speed {
    /// For a picture of so many steps.
    pub fn seconds(self, steps: usize) -> f64 {
        self.beside + self.per_step * steps as f64
    }
}

/// The speeds that were measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Speeds {
    measured: Vec<(Kind, Speed)>,
}

impl Speeds {
    /// Those of earlier runs; none if the file is missing or damaged.
    pub fn load(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps them for the next run. They only save a measurement, so that it fails is no more than a warning.
    pub fn save(&self, path: &Path) {
        let bytes = serde_json::to_vec(self).expect("speeds have string keys");
        if let Err(error) = output::write_atomically(path, &bytes) {
            log::warn!("measured speeds are not kept: {error}");
        }
    }

    /// Takes a measurement in; whether it was the first of its kind.
    pub fn add(&mut self, kind: Kind, new: Speed) -> bool {
        match self.measured.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, speed)) => {
                speed.per_step += FRESH * (new.per_step - speed.per_step);
                speed.beside += FRESH * (new.beside - speed.beside);
                false
            }
            None => {
                self.measured.push((kind, new));
                true
            }
        }
    }

    /// The speed of this kind; where only other kinds of the model were measured, scaled from the one of the nearest
    /// size by area and number of runs.
    pub fn get(&self, kind: &Kind) -> Option<Speed> {
        let of_model = self.measured.iter().filter(|(known, _)| known.model == kind.model);
        let distance = |known: &Kind| {
            let unlike = if known.guided == kind.guided { 0.0 } else { 0.01 };
            (known.area() / kind.area()).ln().abs() + unlike
        };
        let nearest = of_model.min_by(|(a, _), (b, _)| distance(a).total_cmp(&distance(b)));
        nearest.map(|(known, speed)| {
            let area = kind.area() / known.area();
            let runs = |kind: &Kind| if kind.guided { 2.0 } else { 1.0 };
            let per_step = speed.per_step * area * runs(kind) / runs(known);
            Speed { per_step, beside: speed.beside * area }
        })
    }

    /// All that were measured.
    pub fn all(&self) -> &[(Kind, Speed)] {
        &self.measured
    }

    /// What can be drawn in so many seconds: at this size with fewer steps, at least `steps_min`; else at the largest of
    /// `sizes` at which it can.
    pub fn offer(&self, kind: &Kind, seconds: f64, steps_min: usize, sizes: &[[usize; 2]]) -> Option<Offer> {
        let at = |&[width, height]: &[usize; 2]| {
            let speed = self.get(&Kind { width, height, ..kind.clone() })?;
            let steps = ((seconds - speed.beside) / speed.per_step).floor();
            (steps >= steps_min as f64).then_some(Offer { steps: steps as usize, width, height })
        };
        std::iter::once(&[kind.width, kind.height]).chain(sizes).find_map(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(width: usize, guided: bool) -> Kind {
        Kind { model: "m".into(), width, height: 128, guided }
    }

    fn speeds() -> Speeds {
        let mut speeds = Speeds::default();
        speeds.add(kind(128, true), Speed { per_step: 1.0, beside: 2.0 });
        speeds
    }

    #[test]
    fn what_was_not_measured_is_scaled() {
        let speeds = speeds();
        assert_eq!(speeds.get(&kind(128, true)), Some(Speed { per_step: 1.0, beside: 2.0 }));
        assert_eq!(speeds.get(&kind(256, false)), Some(Speed { per_step: 1.0, beside: 4.0 }));
        assert_eq!(speeds.get(&Kind { model: "other".into(), ..kind(128, true) }), None);
    }

    #[test]
    fn measurements_are_averaged() {
        let mut speeds = speeds();
        assert!(!speeds.add(kind(128, true), Speed { per_step: 2.0, beside: 2.0 }));
        assert_eq!(speeds.get(&kind(128, true)).map(|s| s.per_step), Some(1.3));
        assert!(speeds.add(kind(256, true), Speed { per_step: 9.0, beside: 2.0 }));
        assert_eq!(speeds.get(&kind(256, true)).map(|s| s.per_step), Some(9.0));
    }

    #[test]
    fn an_offer_has_fewer_steps_or_is_smaller() {
        let (speeds, sizes) = (speeds(), [[96, 128], [64, 128]]);
        let offer = |seconds| speeds.offer(&kind(128, true), seconds, 2, &sizes);
        assert_eq!(offer(7.5), Some(Offer { steps: 5, width: 128, height: 128 }));
        assert_eq!(offer(3.5), Some(Offer { steps: 2, width: 96, height: 128 }));
        assert_eq!(offer(2.1), Some(Offer { steps: 2, width: 64, height: 128 }));
        assert_eq!(offer(0.5), None);
    }
}
