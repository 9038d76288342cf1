//! What a text says of a term: `name=value`, read and written.

use crate::names::nearest_first;
use std::fmt::Display;
use std::str::FromStr;

/// The names of the terms; `scale` is the factor of q . k.
pub(super) const NAMES: [&str; 12] = [
    "plain",
    "scale",
    "relative",
    "segments",
    "temperature",
    "softcap",
    "alibi",
    "buckets",
    "bias",
    "second_bias",
    "sinks",
    "dropout",
];

/// What is given for a term.
pub(super) struct Fields<'t> {
    pub(super) term: &'t str,
    given: Vec<(&'t str, &'t str)>,
}

impl<'t> Fields<'t> {
    /// A term, and its fields.
    pub(super) fn read(text: &'t str) -> Result<Self, String> {
        let (term, fields) = text.split_once(':').map_or((text, None), |(term, fields)| (term, Some(fields)));
        let mut all = Self { term: term.trim(), given: vec![] };
        for field in fields.into_iter().flat_map(|fields| fields.split(',')) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() || value.is_empty() {
                return Err(format!("expected `name=value` at `{}`", field.trim()));
            }
            if all.given.iter().any(|(own, _)| *own == name) {
                return Err(format!("`{name}` given twice"));
            }
            all.given.push((name, value));
        }
        Ok(all)
    }

    /// Refuses fields of other names.
    pub(super) fn only(&self, known: &[&'static str]) -> Result<(), String> {
        let Some((name, _)) = self.given.iter().find(|(name, _)| !known.contains(name)) else {
            return Ok(());
        };
        let term = self.term;
        Err(match known {
            [] => format!("`{term}` has no parameters, not `{name}`"),
            _ => {
                let known = nearest_first(name, known.iter().copied());
                format!("`{term}` has no parameter `{name}`: {known} are known")
            }
        })
    }

    /// A value, if it is given.
    pub(super) fn find<T: FromStr>(&self, name: &str, need: &str) -> Result<Option<T>, String> {
        let Some((_, value)) = self.given.iter().find(|(own, _)| *own == name) else { return Ok(None) };
        let wrong = |_| format!("`{name}` of `{}`: need {need}, got `{value}`", self.term);
        value.parse().map(Some).map_err(wrong)
    }

    /// A value that has to be there.
    pub(super) fn need<T: FromStr>(&self, name: &str, need: &str) -> Result<T, String> {
        self.find(name, need)?.ok_or_else(|| format!("`{}` needs `{name}`, {need}", self.term))
    }

    /// Whether it is said to be so: not, unless it is.
    pub(super) fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.find(name, "true or false")?.unwrap_or(false))
    }
}

/// Fields to write: those that are not what they are without being said.
#[derive(Default)]
pub(crate) struct Written(pub(super) Vec<(&'static str, String)>);

impl Written {
    /// With this one.
    pub(super) fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.0.push((name, value.to_string()));
        self
    }

    /// With this one, if it is so.
    pub(super) fn with_flag(self, name: &'static str, flag: bool) -> Self {
        if flag { self.with(name, true) } else { self }
    }
}
