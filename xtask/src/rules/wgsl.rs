//! The kernel names no pattern.

use super::rust::without_comments_and_strings;

/// Words that only a pattern would bring into the kernel.
const PATTERNS: [&str; 12] = [
    "causal",
    "window",
    "windowed",
    "prefix",
    "document",
    "strided",
    "dilated",
    "bigbird",
    "longformer",
    "lsh",
    "bucket",
    "predicate",
];

/// The identifiers of a shader that name a pattern, one message each.
pub(super) fn pattern_names(text: &str) -> Vec<String> {
    let code = without_comments_and_strings(text);
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let lower = word.to_lowercase();
            if let Some(pattern) =
                lower.split('_').find_map(|part| PATTERNS.iter().find(|name| **name == part))
            {
                found.push(format!("line {}: `{word}` names a pattern ({pattern})", index + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_in_names_and_not_in_comments() {
        assert_eq!(pattern_names("if (IS_CAUSAL) { x(); }").len(), 1);
        assert_eq!(pattern_names("let window_end = 1u;\nlet a = lsh;").len(), 2);
        assert_eq!(pattern_names("// causal: the last rows come first\nlet windowless = casual;"), [""; 0]);
    }
}
