//! The classes of pictures that a model can be asked for.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Classes by their numbers, which a network is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// The number that stands for no class in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<usize>,
    /// What the classes are called, from number 0 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<ClassName>,
}

/// What a class is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassName {
    /// Its name.
    pub name: String,
    /// Other names for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

impl ClassName {
    /// Its name, and then the others.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }
}

impl Classes {
    /// The number of the class that is called so, in whatever case.
    pub fn find(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.names.iter().position(|class| class.all().any(|own| own.to_lowercase() == name))
    }

    /// The first name that is empty, or that an earlier class has too.
    pub fn unusable_name(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.names.iter().find_map(|class| {
            let own: HashSet<String> = class.all().map(str::to_lowercase).collect();
            let unusable = class.all().find(|name| {
                let lower = name.to_lowercase();
                lower.trim() != lower || lower.is_empty() || seen.contains(&lower)
            });
            seen.extend(own);
            unusable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(names: &[(&str, &[&str])]) -> Classes {
        let name = |(name, aliases): &(&str, &[&str])| ClassName {
            name: (*name).into(),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
        };
        Classes { null: None, names: names.iter().map(name).collect() }
    }

    #[test]
    fn classes_are_found_by_any_of_their_names_in_whatever_case() {
        let classes = classes(&[("panda", &["panda bear", "판다"]), ("Éclair", &[])]);
        let found = ["Panda", "PANDA BEAR", "판다", "éclair", "bear", ""].map(|name| classes.find(name));
        assert_eq!(found, [Some(0), Some(0), Some(0), Some(1), None, None]);
        assert_eq!(classes.unusable_name(), None);
    }

    #[test]
    fn a_name_stands_for_one_class() {
        assert_eq!(classes(&[("cat", &[]), ("dog", &["Cat"])]).unusable_name(), Some("Cat"));
        assert_eq!(classes(&[("cat", &["CAT"])]).unusable_name(), None);
        assert_eq!(classes(&[("cat", &[""])]).unusable_name(), Some(""));
        assert_eq!(classes(&[(" cat", &[])]).unusable_name(), Some(" cat"));
    }
}
