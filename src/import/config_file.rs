//! Reading the small files that say how networks go together.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ImportError;

/// A configuration file larger than this is not one.
const MAX_BYTES: u64 = 16 << 20;

/// All of a file.
///
/// # Errors
/// [`ImportError::Read`]; [`ImportError::Config`] if it is too large.
pub fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > MAX_BYTES {
        let reason = format!("{len} bytes are more than the {MAX_BYTES} that such a file may have");
        return Err(ImportError::Config { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}

/// A file of JSON.
///
/// # Errors
/// As [`read`]; [`ImportError::Config`] if it is none.
pub fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, ImportError> {
    parse_text(path, &read(path)?)
}

/// A file of JSON as Python writes it, with null for numbers that are none.
///
/// # Errors
/// As [`parse`].
pub fn parse_python(path: &Path) -> Result<Value, ImportError> {
    parse_text(path, standard(&String::from_utf8_lossy(&read(path)?)).as_bytes())
}

fn parse_text<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, ImportError> {
    let failed =
        |error: serde_json::Error| ImportError::Config { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(text).map_err(failed)
}

/// JSON as Python writes it, with null for numbers that are none, such as `"lambda_min_clipped": -Infinity`.
fn standard(text: &str) -> String {
    let outside = |part: &str| {
        ["-Infinity", "Infinity", "NaN"].iter().fold(part.to_owned(), |part, word| part.replace(word, "null"))
    };
    // Every other part stands between quotes; no string of a scheduler's has a quote in it.
    let parts = text.split('"').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 0 { outside(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_read_as_null() {
        let text =
            r#"{"lambda_min_clipped": -Infinity, "a": [NaN, Infinity], "_class_name": "NaN -Infinity"}"#;
        assert_eq!(
            standard(text),
            r#"{"lambda_min_clipped": null, "a": [null, null], "_class_name": "NaN -Infinity"}"#
        );
    }
}
