//! The keys of a `scheduler_config.json`, read with their defaults.

use serde_json::{Map, Value};

use super::config::ConfigError;

/// The keys of a configuration.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    /// The value of `key` as `parse` understands it, or `default` if the key is missing.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        default: T,
        expected: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let Some(value) = self.0.get(key) else { return Ok(default) };
        parse(value).ok_or_else(|| ConfigError::Value { key, got: shortened(value), expected })
    }

    /// As [`read`](Self::read), for what other samplers may be able to do.
    pub(super) fn read_supported<T>(
        &self,
        key: &'static str,
        default: T,
        expected: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let Some(value) = self.0.get(key) else { return Ok(default) };
        parse(value).ok_or_else(|| ConfigError::Unsupported { key, got: shortened(value), expected })
    }

    /// Checks that nothing is asked for under these keys: each is missing, null or false.
    pub(super) fn unused(&self, keys: &[&'static str]) -> Result<(), ConfigError> {
        let unused = |value: &Value| matches!(value, Value::Null | Value::Bool(false)).then_some(());
        keys.iter().try_for_each(|key| self.read_supported(key, (), "false or null", unused))
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        self.read(key, default, "true or false", Value::as_bool)
    }

    pub(super) fn positive(&self, key: &'static str, default: f32) -> Result<f32, ConfigError> {
        self.read(key, default, "a finite float32 above 0", |v| {
            Some(v.as_f64()? as f32).filter(|x| *x > 0.0 && x.is_finite())
        })
    }
}

/// A value as JSON, cut to a length that suits an error message.
fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
