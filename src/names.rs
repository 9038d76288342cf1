//! Names that are known, for whoever misspells one.

/// The names, each in backquotes, the nearest to `name` first.
pub(crate) fn nearest_first<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = known.into_iter().collect();
    names.sort_by_key(|known| distance(&name.to_lowercase(), known));
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
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
