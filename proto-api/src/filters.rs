//! The `filters=` query parameter.
//!
//! A JSON object of filter names to sets of values. The set is written as a list
//! (`{"status":["running"]}`) or, by older clients, as an object whose values are `true`
//! (`{"status":{"running":true}}`). Values of one name are alternatives; different names must all
//! hold, which the callers see to.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Filter names and their values, in the order of the names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Why a `filters=` parameter was refused. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Not a JSON object of lists or sets.
    #[error("invalid filter: {0}")]
    Syntax(#[source] serde_json::Error),
    /// A name that the endpoint does not know.
    #[error("invalid filter '{0}'")]
    UnknownName(String),
    /// A value that its name does not take.
    #[error("invalid filter '{name}={value}'")]
    BadValue {
        /// The filter's name.
        name: String,
        /// The value that was refused.
        value: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// Parses the parameter; an empty text is no filter at all.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let raw: BTreeMap<String, Values> = serde_json::from_str(text).map_err(FilterError::Syntax)?;
        Ok(Self(
            raw.into_iter()
                .map(|(name, values)| {
                    let values = match values {
                        Values::List(list) => list,
                        Values::Set(set) => {
                            set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect()
                        }
                    };
                    (name, values)
                })
                .collect(),
        ))
    }

    /// Refuses names that are not in `known`.
    pub fn only(self, known: &[&str]) -> Result<Self, FilterError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(FilterError::UnknownName(name.clone())),
            None => Ok(self),
        }
    }

    /// The values of a name; empty where it was not given.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds a value to a name.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().push(value.into());
    }

    /// Whether the name was given with at least one value.
    pub fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Whether nothing is filtered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `matches` holds for one value of the name, or the name was not given.
    pub fn any(&self, name: &str, matches: impl FnMut(&String) -> bool) -> bool {
        !self.has(name) || self.get(name).iter().any(matches)
    }

    /// A boolean filter such as `dangling=true`; `None` where it was not given.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FilterError> {
        match self.get(name) {
            [] => Ok(None),
            [value] if matches!(value.as_str(), "1" | "true" | "True" | "TRUE" | "t" | "T") => Ok(Some(true)),
            [value] if matches!(value.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F") => {
                Ok(Some(false))
            }
            values => Err(FilterError::BadValue { name: name.to_owned(), value: values.join(",") }),
        }
    }

    /// Whether labels satisfy every value of the filter `name` (`label` or `label!`):
    /// `key` asks for the key, `key=value` for both. All values must hold, as in Docker.
    pub fn labels(&self, name: &str, label: impl Fn(&str) -> Option<String>) -> bool {
        self.get(name).iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => label(key).as_deref() == Some(value),
            None => label(wanted).is_some(),
        })
    }

    /// The parameter's text in its newer form, for a client to send.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("strings serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let list = Filters::parse(r#"{"status":["running","exited"]}"#).unwrap();
        assert_eq!(list.get("status"), ["running", "exited"]);
        let set = Filters::parse(r#"{"status":{"running":true,"dead":false}}"#).unwrap();
        assert_eq!(set.get("status"), ["running"]);
        assert_eq!(Filters::parse(&list.to_json()).unwrap(), list);
    }

    #[test]
    fn junk_and_unknown_names_are_refused() {
        assert!(Filters::parse("[1]").is_err());
        let error = Filters::parse(r#"{"nope":["1"]}"#).unwrap().only(&["label"]).unwrap_err();
        assert_eq!(error.to_string(), "invalid filter 'nope'");
    }

    #[test]
    fn labels_must_all_hold() {
        let mut filters = Filters::default();
        filters.add("label", "a=1");
        filters.add("label", "b");
        let labels = |key: &str| match key {
            "a" => Some("1".to_owned()),
            "b" => Some(String::new()),
            _ => None,
        };
        assert!(filters.labels("label", labels));
        filters.add("label", "c");
        assert!(!filters.labels("label", labels));
    }
}
