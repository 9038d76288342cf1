//! The names of the patterns, for whoever misspells one.

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
    let mut names = ALL;
    names.sort_by_key(|known| distance(&name.to_lowercase(), known));
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    format!("no pattern is called `{name}`: {} are known", names.join(", "))
}

/// How far a name is from a known one, in quarters: 1 for each letter that is missing or wrong, a quarter for each that is
/// too much (`sliding_window` means `window`). A dozen lines, so that the library needs no crate for it.
fn distance(name: &str, known: &str) -> usize {
    let known: Vec<char> = known.chars().collect();
    let mut row: Vec<usize> = (0..=known.len()).map(|missing| 4 * missing).collect();
    for letter in name.chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (at, wanted) in known.iter().enumerate() {
            let kept = diagonal + if letter == *wanted { 0 } else { 4 };
            diagonal = row[at + 1];
            row[at + 1] = kept.min(diagonal + 1).min(row[at] + 4);
        }
    }
    row[known.len()]
}
