//! A network's `config.json`, of which every key is looked at.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::ArchitectureError;

/// The largest size or count in a configuration.
const MAX: u64 = 1 << 24;

/// A configuration, and which of its keys somebody asked for.
pub struct Config<'a> {
    file: &'a Path,
    json: &'a Value,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Config<'a> {
    /// What stands in `file`.
    pub fn new(file: &'a Path, json: &'a Value) -> Self {
        Self { file, json, known: RefCell::default() }
    }

    /// What stands under a key; null where nothing does.
    fn get(&self, key: &'static str) -> &'a Value {
        self.known.borrow_mut().insert(key);
        &self.json[key]
    }

    /// That what stands under a key is not what was expected.
    pub fn refuse(&self, key: &str, expected: impl Into<String>) -> ArchitectureError {
        let (file, got) = (self.file.to_owned(), self.json[key].to_string());
        ArchitectureError::Config { file, key: key.to_owned(), expected: expected.into(), got }
    }

    /// The class, which has to be one of some.
    pub fn class(&self, classes: &[&'static str]) -> Result<&'static str, ArchitectureError> {
        let class = self.get("_class_name");
        let found = classes.iter().find(|&name| class == name).copied();
        found.ok_or_else(|| self.refuse("_class_name", classes.join(" or ")))
    }

    /// The class as transformers writes it, where it does.
    pub fn architecture(&self) -> Option<&'a str> {
        self.get("architectures")[0].as_str()
    }

    /// Whether a key is there, be it null.
    pub fn has(&self, key: &'static str) -> bool {
        self.known.borrow_mut().insert(key);
        self.json.get(key).is_some()
    }

    /// A size or count of at least 1.
    pub fn number(&self, key: &'static str, default: Option<usize>) -> Result<usize, ArchitectureError> {
        self.optional(key)?.or(default).ok_or_else(|| self.refuse(key, "a number"))
    }

    /// A size or count of at least 1, if there is one.
    pub fn optional(&self, key: &'static str) -> Result<Option<usize>, ArchitectureError> {
        match self.get(key) {
            Value::Null => Ok(None),
            value => whole(value)
                .map(Some)
                .ok_or_else(|| self.refuse(key, format!("a whole number from 1 to {MAX}"))),
        }
    }

    /// A whole number that may be 0.
    pub fn whole(&self, key: &'static str, default: usize) -> Result<usize, ArchitectureError> {
        match self.get(key) {
            Value::Null => Ok(default),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(0),
            _ => self.number(key, None),
        }
    }

    /// One size or count for each of `count` levels; a single one is for all.
    pub fn per_level(
        &self,
        key: &'static str,
        count: usize,
        default: Option<usize>,
    ) -> Result<Vec<usize>, ArchitectureError> {
        let refuse = || self.refuse(key, format!("a whole number, or {count} of them"));
        match self.get(key) {
            Value::Null => default.map(|number| vec![number; count]).ok_or_else(refuse),
            Value::Array(list) if list.len() == count => {
                list.iter().map(whole).collect::<Option<_>>().ok_or_else(refuse)
            }
            value => whole(value).map(|number| vec![number; count]).ok_or_else(refuse),
        }
    }

    /// A list of sizes, at most a handful.
    pub fn numbers(&self, key: &'static str) -> Result<Vec<usize>, ArchitectureError> {
        let list = self.get(key).as_array().filter(|list| (1..=16).contains(&list.len()));
        let numbers = list.and_then(|list| list.iter().map(whole).collect());
        numbers.ok_or_else(|| self.refuse(key, "one to 16 whole numbers"))
    }

    /// A list of words out of some.
    pub fn words(
        &self,
        key: &'static str,
        count: usize,
        known: &[&str],
    ) -> Result<Vec<&'a str>, ArchitectureError> {
        let list = self.get(key).as_array().filter(|list| list.len() == count);
        let words: Option<Vec<&str>> = list.and_then(|list| list.iter().map(Value::as_str).collect());
        let words = words.filter(|words| words.iter().all(|word| known.contains(word)));
        words.ok_or_else(|| self.refuse(key, format!("{count} times one of {}", known.join(", "))))
    }

    /// A word, if there is one.
    pub fn word(&self, key: &'static str) -> Result<Option<&'a str>, ArchitectureError> {
        match self.get(key) {
            Value::Null => Ok(None),
            value => value.as_str().map(Some).ok_or_else(|| self.refuse(key, "a word")),
        }
    }

    /// Yes or no.
    pub fn flag(&self, key: &'static str, default: bool) -> Result<bool, ArchitectureError> {
        match self.get(key) {
            Value::Null => Ok(default),
            value => value.as_bool().ok_or_else(|| self.refuse(key, "true or false")),
        }
    }

    /// A number that need not be whole.
    pub fn float(&self, key: &'static str, default: f32) -> Result<f32, ArchitectureError> {
        match self.get(key) {
            Value::Null => Ok(default),
            value => value.as_f64().map(|x| x as f32).ok_or_else(|| self.refuse(key, "a number")),
        }
    }

    /// That keys have the one value that is built, or are absent.
    pub fn expect(&self, fixed: &[(&'static str, Value)]) -> Result<(), ArchitectureError> {
        for (key, expected) in fixed {
            let got = self.get(key);
            let equal = got == expected || got.as_f64().is_some_and(|got| Some(got) == expected.as_f64());
            let uniform = got.as_array().is_some_and(|list| list.iter().all(|one| one == expected));
            if !got.is_null() && !equal && !uniform {
                return Err(self.refuse(key, expected.to_string()));
            }
        }
        Ok(())
    }

    /// That no key is left that could change what is computed; `ignored` do not.
    pub fn finish(&self, ignored: &[&str]) -> Result<(), ArchitectureError> {
        let known = self.known.borrow();
        let left = self.json.as_object().into_iter().flatten().find(|(key, value)| {
            let key = key.as_str();
            let says_nothing = value.is_null() || **value == json!(false);
            !key.starts_with('_') && !known.contains(key) && !ignored.contains(&key) && !says_nothing
        });
        match left {
            Some((key, _)) => Err(self.refuse(key, "no such key: it may change what the network computes")),
            None => Ok(()),
        }
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().filter(|number| (1..=MAX).contains(number)).and_then(|number| usize::try_from(number).ok())
}
