//! The names of the patterns, for whoever misspells one.

use crate::names::nearest_first;
use serde_json::Value;

/// As `AnyPattern` has them: a test compares the two.
pub(super) const ALL: [&str; 20] = [
    "full",
    "causal",
    "window",
    "prefix",
    "first",
    "document",
    "permutation",
    "key_lengths",
    "blocks",
    "mask",
    "strided",
    "dilated",
    "fixed",
    "global",
    "random",
    "bigbird",
    "longformer",
    "and",
    "or",
    "not",
];

/// Checks the names in a pattern and in those that it combines; the error lists all, the nearest first.
pub(super) fn check(json: &Value) -> Result<(), String> {
    match json.get("kind") {
        Some(Value::String(name)) if !ALL.contains(&name.as_str()) => Err(unknown(name)),
        _ => match json.get("of") {
            Some(Value::Array(of)) => of.iter().try_for_each(check),
            Some(of) => check(of),
            None => Ok(()),
        },
    }
}

fn unknown(name: &str) -> String {
    format!("no pattern is called `{name}`: {} are known", nearest_first(name, ALL))
}
