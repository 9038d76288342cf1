//! The patterns that the page offers: their parameters, the pattern itself, and the Rust line that makes it.
//!
//! | file | what |
//! |---|---|
//! | `kinds.rs` | each pattern of the crate |
//! | `tests.rs` | every line compiles, and makes the same pairs |

mod kinds;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use wgpu_attention::{AnyPattern, Error, Result};

pub(crate) use kinds::KINDS;

/// A pattern to choose.
#[derive(Debug, Serialize)]
pub(crate) struct Kind {
    /// As [`AnyPattern`] has it; `text` for a combination of one's own.
    name: &'static str,
    title: &'static str,
    /// Which keys a query attends, in a sentence.
    says: &'static str,
    /// Where it was published, or nothing.
    source: &'static str,
    inputs: &'static [Input],
    #[serde(skip)]
    make: fn(&Values<'_>) -> Result<Made>,
}

/// A parameter.
#[derive(Debug, Serialize)]
pub(crate) struct Input {
    name: &'static str,
    label: &'static str,
    /// The value that it starts with.
    starts: &'static str,
    form: Form,
}

/// How a parameter is given.
#[derive(Debug, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Form {
    /// A whole number; the ends are a slider's alone. Without `most` it goes up to the length.
    Number { least: u32, most: Option<u32> },
    /// `0` or `1`.
    Flag,
    /// One of these words.
    Choice { of: &'static [&'static str] },
    /// Anything.
    Text,
}

/// What the page asks for: a pattern by its name, with the parameters that are given, as they were typed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    pattern: String,
    /// Keys.
    length: String,
    /// Queries; as many as keys where it is empty.
    #[serde(default)]
    queries: String,
    #[serde(default)]
    values: BTreeMap<String, String>,
}

/// A pattern, and how it is made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pattern: AnyPattern,
    /// Rust with the crate's names in scope, in a function that returns a `Result`.
    pub(crate) rust: String,
    /// As it was written for the command line, where it was.
    text: Option<String>,
}

/// The parameters of one pattern.
struct Values<'a> {
    kind: &'a Kind,
    given: &'a BTreeMap<String, String>,
    /// Keys.
    len: usize,
    queries: usize,
}

/// Characters of the form for a command line that are shown.
const COMMAND_CHARS: usize = 200;

impl Choice {
    /// Keys.
    ///
    /// # Errors
    /// It is not a whole number from 1 on.
    pub(crate) fn length(&self) -> Result<usize> {
        positive("length", &self.length)
    }

    /// Queries.
    ///
    /// # Errors
    /// As of [`Self::length`].
    pub(crate) fn queries(&self) -> Result<usize> {
        if self.queries.is_empty() { self.length() } else { positive("queries", &self.queries) }
    }

    /// The pattern, not yet checked against the lengths.
    ///
    /// # Errors
    /// Its name or a parameter is not known, or a parameter is not of its form.
    pub(crate) fn make(&self) -> Result<Made> {
        let Some(kind) = KINDS.iter().find(|kind| kind.name == self.pattern) else {
            let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            return Err(Error::argument("pattern", known.join(", "), format!("`{}`", self.pattern)));
        };
        if let Some(name) = self.values.keys().find(|name| kind.inputs.iter().all(|it| it.name != **name)) {
            let known: Vec<_> = kind.inputs.iter().map(|it| it.name).collect();
            let need = if known.is_empty() { "no parameters".into() } else { known.join(", ") };
            return Err(Error::argument(kind.name, need, format!("`{name}`")));
        }
        (kind.make)(&Values { kind, given: &self.values, len: self.length()?, queries: self.queries()? })
    }
}

impl Made {
    /// The pattern as the command line takes it, where that is short.
    pub(crate) fn command(&self) -> Option<String> {
        if self.text.is_some() {
            return self.text.clone();
        }
        let text = self.pattern.to_json();
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        let mut fields: Vec<_> = json.as_object()?.iter().filter(|(name, _)| *name != "kind").collect();
        // In the order in which they are written, which a map does not keep.
        fields.sort_by_key(|(name, _)| text.find(&format!("\"{name}\":")));
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| match value {
                serde_json::Value::String(word) => format!("{name}={word}"),
                value => format!("{name}={value}"),
            })
            .collect();
        let name = json["kind"].as_str()?;
        let text = if fields.is_empty() { name.into() } else { format!("{name}:{}", fields.join(",")) };
        (text.len() <= COMMAND_CHARS && AnyPattern::parse(&text).as_ref() == Ok(&self.pattern))
            .then_some(text)
    }
}

impl<'a> Values<'a> {
    /// What was given, or what it starts with.
    fn text(&self, name: &str) -> &'a str {
        let starts = self.kind.inputs.iter().find(|it| it.name == name).map_or("", |it| it.starts);
        self.given.get(name).map_or(starts, |text| text.trim())
    }

    fn number(&self, name: &str) -> Result<usize> {
        whole(format!("{}.{name}", self.kind.name), self.text(name), 0)
    }

    /// A distance, which cannot be 0.
    fn positive(&self, name: &str) -> Result<usize> {
        whole(format!("{}.{name}", self.kind.name), self.text(name), 1)
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name) {
            "1" => Ok(true),
            "0" => Ok(false),
            other => {
                Err(Error::argument(format!("{}.{name}", self.kind.name), "0 or 1", format!("`{other}`")))
            }
        }
    }

    /// What a word of the list means.
    fn choice<T: Copy>(&self, name: &str, meanings: &[(&str, T)]) -> Result<T> {
        let given = self.text(name);
        let found = meanings.iter().find(|(word, _)| *word == given);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let known: Vec<_> = meanings.iter().map(|(word, _)| *word).collect();
            Error::argument(format!("{}.{name}", self.kind.name), known.join(", "), format!("`{given}`"))
        })
    }
}

fn positive(name: &'static str, text: &str) -> Result<usize> {
    whole(name, text, 1)
}

/// A whole number, as it was typed.
pub(crate) fn whole(name: impl Into<Cow<'static, str>>, text: &str, least: u32) -> Result<usize> {
    match text.trim().parse::<u32>() {
        Ok(number) if number >= least => Ok(number as usize),
        _ => {
            let need = format!("a whole number from {least} to {}", u32::MAX);
            Err(Error::argument(name, need, if text.is_empty() { "nothing" } else { text }))
        }
    }
}
