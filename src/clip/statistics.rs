//! Mean and standard deviation of a model's embeddings, with which they are brought to unit variance and back.

use serde::Deserialize;

/// Why a file of statistics was refused.
#[derive(Debug, thiserror::Error)]
pub enum StatisticsError {
    /// It is not what it should be.
    #[error("{name} of this model is damaged: import it again")]
    Json {
        /// The file.
        name: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// There is not one number of each for every number of an embedding.
    #[error("{name} of this model is for embeddings of {got} numbers, and these have {expected}")]
    Width {
        /// The file.
        name: &'static str,
        /// Of the embeddings.
        expected: usize,
        /// Of the file.
        got: usize,
    },
}

/// Mean and standard deviation of each number of an embedding.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Statistics {
    /// What the file `name` says, for embeddings of `width` numbers.
    ///
    /// # Errors
    /// [`StatisticsError`].
    pub fn from_json(name: &'static str, json: &[u8], width: usize) -> Result<Self, StatisticsError> {
        let read: Self =
            serde_json::from_slice(json).map_err(|source| StatisticsError::Json { name, source })?;
        for got in [read.mean.len(), read.std.len()] {
            if got != width {
                return Err(StatisticsError::Width { name, expected: width, got });
            }
        }
        Ok(read)
    }

    /// To mean 0 and unit variance, in place.
    pub fn scale(&self, embedding: &mut [f32]) {
        let numbers = embedding.iter_mut().zip(self.mean.iter().zip(&self.std));
        numbers.for_each(|(x, (mean, std))| *x = (*x - mean) / std);
    }

    /// Back again, in place.
    pub fn unscale(&self, embedding: &mut [f32]) {
        let numbers = embedding.iter_mut().zip(self.mean.iter().zip(&self.std));
        numbers.for_each(|(x, (mean, std))| *x = *x * std + mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_another_width_are_refused() {
        let read = |json: &str| Statistics::from_json("a.json", json.as_bytes(), 2);
        let statistics = read(r#"{"mean": [1.0, 2.0], "std": [2.0, 0.5]}"#).unwrap();
        let mut embedding = [3.0, 1.0];
        statistics.scale(&mut embedding);
        assert_eq!(embedding, [1.0, -2.0]);
        statistics.unscale(&mut embedding);
        assert_eq!(embedding, [3.0, 1.0]);
        let error = |json: &str| read(json).unwrap_err().to_string();
        assert!(error(r#"{"mean": [1.0, 2.0], "std": [2.0]}"#).contains("1 numbers"));
        assert!(error(r#"{"mean": [1.0, 2.0]}"#).contains("a.json"));
    }
}
