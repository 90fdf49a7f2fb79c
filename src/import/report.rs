//! What an import did to a model, for the person who asked for it and for whoever gets the file.

use serde::Serialize;
use serde_json::{Value, json};

use crate::bundle::Dtype;

/// What an import did. It is in the bundle, under `report`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// One entry for each component.
    pub components: Vec<ComponentReport>,
    /// A picture by this model against one by the same model in f32, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<Difference>,
}

/// What became of one component.
#[derive(Debug, Clone, Serialize)]
pub struct ComponentReport {
    /// Which one.
    pub component: &'static str,
    /// Operations in its graph.
    pub operations: usize,
    /// Its weights, counted in numbers, by how they are stored.
    pub numbers: Numbers,
    /// Its weights against f32.
    pub weights: Difference,
    /// Its output for example inputs against that of f32 weights, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Difference>,
}

/// Counts of numbers by their type.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Numbers {
    /// Stored as int8.
    pub i8: usize,
    /// Stored as f16.
    pub f16: usize,
    /// Stored as f32.
    pub f32: usize,
}

impl Numbers {
    /// Counts `count` numbers more.
    pub fn add(&mut self, dtype: Dtype, count: usize) {
        match dtype {
            Dtype::I8 => self.i8 += count,
            Dtype::F16 => self.f16 += count,
            Dtype::F32 => self.f32 += count,
        }
    }
}

/// How far numbers are from what they stand for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Difference {
    /// The error's Euclidean norm over that of the numbers, 0 or more.
    pub relative_l2: f64,
    /// 20 log10(range / root mean square error) in dB, the range being that of the numbers; `null` without error.
    pub psnr_db: Option<f64>,
}

/// Numbers and their errors, summed up.
#[derive(Debug, Clone, Copy)]
pub struct Deviation {
    count: usize,
    squared: f64,
    power: f64,
    least: f32,
    largest: f32,
}

impl Default for Deviation {
    fn default() -> Self {
        Self { count: 0, squared: 0.0, power: 0.0, least: f32::INFINITY, largest: f32::NEG_INFINITY }
    }
}

impl Deviation {
    /// Of numbers whose range is known.
    pub fn of_range(least: f32, largest: f32) -> Self {
        Self { least, largest, ..Self::default() }
    }

    /// Adds numbers and what stands for them.
    pub fn add(&mut self, exact: &[f32], approximate: impl IntoIterator<Item = f32>) {
        for (&x, y) in exact.iter().zip(approximate) {
            self.squared += f64::from(y - x).powi(2);
            self.power += f64::from(x).powi(2);
            self.least = self.least.min(x);
            self.largest = self.largest.max(x);
        }
        self.count += exact.len();
    }

    /// Adds what another one has summed up.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.squared += other.squared;
        self.power += other.power;
        self.least = self.least.min(other.least);
        self.largest = self.largest.max(other.largest);
    }

    /// The error's Euclidean norm over that of the numbers, 0 where there is no error.
    pub fn relative_l2(&self) -> f64 {
        if self.squared > 0.0 { (self.squared / self.power).sqrt() } else { 0.0 }
    }

    /// Both measures.
    pub fn difference(&self) -> Difference {
        let range = f64::from(self.largest) - f64::from(self.least);
        let psnr = 10.0 * (range * range * self.count as f64 / self.squared).log10();
        Difference { relative_l2: self.relative_l2(), psnr_db: (self.squared > 0.0).then_some(psnr) }
    }
}

impl Report {
    /// As the bundle has it.
    pub fn to_json(&self) -> Value {
        json!(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_follow_their_definitions() {
        let mut all = Deviation::default();
        all.add(&[3.0, -1.0], [3.0, -1.5]);
        let mut more = Deviation::default();
        more.add(&[0.0, 4.0], [0.5, 4.0]);
        all.merge(&more);
        let difference = all.difference();
        assert!((difference.relative_l2 - (0.5f64 / 26.0).sqrt()).abs() < 1e-12);
        // A range of 5, a mean square of 1/8.
        assert!((difference.psnr_db.unwrap() - 10.0 * 200.0f64.log10()).abs() < 1e-9);
        assert_eq!(Deviation::default().difference().psnr_db, None);
    }
}
