//! Texts of others, as a record or a terminal can have them.

/// A text of several lines as one.
pub fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_become_one() {
        assert_eq!(one_line("a:\n  b\n\n  c\n"), "a: b c");
    }
}
