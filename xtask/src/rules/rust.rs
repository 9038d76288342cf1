//! What a Rust file names: modules of its own crate, and words.

use std::collections::HashMap;
use std::path::Path;

/// Names with the lines they are on.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Uses {
    /// First names after `crate::` (or after as many `super::` as lead to the crate's root).
    pub(super) of_crate: Vec<(usize, String)>,
    /// All identifiers.
    pub(super) words: Vec<(usize, String)>,
}

/// A piece of the text: an identifier, `::` or one other character.
pub(super) struct Token<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// How many modules deep a file is: `lib.rs` 0, `mask/mod.rs` 1, `mask/runs.rs` 2.
pub(super) fn depth(path: &Path) -> usize {
    let folders = path.components().count() - 1;
    let is_folders_own = path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib");
    folders + usize::from(!is_folders_own)
}

/// What a file that is `depth` modules deep names.
pub(super) fn uses(text: &str, depth: usize) -> Uses {
    let code = without_comments_and_strings(text);
    let tokens = without_test_modules(tokens(&code));
    let is = |at: usize, what: &str| tokens.get(at).is_some_and(|token: &Token| token.text == what);
    let mut found = Uses::default();
    let mut at = 0;
    while at < tokens.len() {
        if is_word(tokens[at].text) {
            found.words.push((tokens[at].line, tokens[at].text.into()));
        }
        let mut supers = 0;
        while is(at + 2 * supers, "super") && is(at + 2 * supers + 1, "::") {
            supers += 1;
        }
        let path = if is(at, "crate") && is(at + 1, "::") {
            Some(at + 2)
        } else {
            (supers > 0 && supers >= depth).then_some(at + 2 * supers)
        };
        if let Some(path) = path {
            found.of_crate.extend(first_names(&tokens[path..]));
        }
        at += (2 * supers).max(1);
    }
    found
}

/// The modules behind the names that the crate's root re-exports: `pub use mask::{BlockMask, ...}`.
pub(super) fn reexports(lib: &str) -> HashMap<String, String> {
    let code = without_comments_and_strings(lib);
    let tokens = tokens(&code);
    let mut found = HashMap::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_use = token.text == "use" && at > 0 && tokens[at - 1].text == "pub";
        if !is_use {
            continue;
        }
        let statement: Vec<_> =
            tokens[at + 1..].iter().take_while(|token| token.text != ";").map(|token| token.text).collect();
        if let Some((module, names)) = statement.split_first() {
            let names = names.iter().filter(|name| is_word(name));
            found.extend(names.map(|name| (name.to_string(), module.to_string())));
        }
    }
    found
}

/// The first names of a path, or of every path of a group `{a::b, c}`.
fn first_names(tokens: &[Token]) -> Vec<(usize, String)> {
    let named = |token: &Token| (token.line, token.text.to_string());
    match tokens.first() {
        Some(token) if is_word(token.text) => return vec![named(token)],
        Some(token) if token.text == "{" => {}
        _ => return Vec::new(),
    }
    let mut found = Vec::new();
    let mut nesting = 0;
    for pair in tokens.windows(2) {
        match pair[0].text {
            "{" => nesting += 1,
            "}" => nesting -= 1,
            _ => {}
        }
        if nesting == 0 {
            break;
        }
        if nesting == 1 && matches!(pair[0].text, "{" | ",") && is_word(pair[1].text) {
            found.push(named(&pair[1]));
        }
    }
    found
}

/// Whether the token is an identifier.
pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The text's pieces, with the lines they are on.
pub(super) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = if part_of_word(first) {
                rest.find(|c| !part_of_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                found.push(Token { line: index + 1, text: &rest[..length] });
            }
            rest = &rest[length..];
        }
    }
    found
}

/// The text with comments and the insides of strings and characters blanked; lines stay where they are.
pub(super) fn without_comments_and_strings(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let length = blank_length(&chars[at..]);
        if length == 0 {
            out.push(chars[at]);
        }
        out.extend(chars[at..at + length].iter().map(|&c| if c == '\n' { c } else { ' ' }));
        at += length.max(1);
    }
    out
}

/// How many characters from here on are a comment, a string or a character; 0 where code goes on.
fn blank_length(rest: &[char]) -> usize {
    let second = rest.get(1).copied();
    match (rest[0], second) {
        ('/', Some('/')) => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ('/', Some('*')) => block_comment_length(rest),
        ('"', _) => quoted_length(rest, '"'),
        ('r', Some('"' | '#')) => raw_length(rest),
        ('\'', Some('\\')) => quoted_length(rest, '\''),
        // A character; a lifetime has no second quote there.
        ('\'', Some(_)) if rest.get(2) == Some(&'\'') => 3,
        _ => 0,
    }
}

/// The length of a block comment with those inside it.
fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        let change = match (rest[at], rest[at + 1]) {
            ('/', '*') => 1,
            ('*', '/') => -1,
            _ => 0,
        };
        depth += change;
        at += if change == 0 { 1 } else { 2 };
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length up to the closing quote, past escaped ones.
fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The length of a raw string; 0 for a raw identifier.
fn raw_length(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let inside = &rest[hashes + 2..];
    let length = inside.windows(end.len()).position(|window| window == end).unwrap_or(inside.len());
    (hashes + 2 + length + end.len()).min(rest.len())
}

/// The tokens without the modules of tests, which may compare with anything.
pub(super) fn without_test_modules(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    const HEAD: [&str; 8] = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let mut kept = Vec::new();
    let mut rest = tokens.into_iter();
    while let Some(token) = rest.next() {
        kept.push(token);
        let ends_with_head = kept.len() >= HEAD.len()
            && kept[kept.len() - HEAD.len()..].iter().map(|token| token.text).eq(HEAD);
        if ends_with_head {
            kept.truncate(kept.len() - HEAD.len());
            let mut nesting = 0;
            for token in rest.by_ref() {
                nesting += i32::from(token.text == "{") - i32::from(token.text == "}");
                if nesting == 0 && matches!(token.text, "}" | ";") {
                    break;
                }
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_crate(text: &str, depth: usize) -> Vec<String> {
        uses(text, depth).of_crate.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn depth_follows_the_module_tree() {
        assert_eq!(depth(Path::new("lib.rs")), 0);
        assert_eq!(depth(Path::new("mask/mod.rs")), 1);
        assert_eq!(depth(Path::new("mask.rs")), 1);
        assert_eq!(depth(Path::new("mask/runs.rs")), 2);
    }

    #[test]
    fn paths_from_the_root_are_found() {
        assert_eq!(of_crate("use crate::mask::A;", 1), ["mask"]);
        assert_eq!(of_crate("use crate::{mask::{A, B}, gpu, shape::C};", 1), ["mask", "gpu", "shape"]);
        assert_eq!(of_crate("let x: crate::gpu::P = 1;", 1), ["gpu"]);
        assert_eq!(of_crate("pub(crate) fn f() {}", 1), [""; 0]);
    }

    #[test]
    fn super_counts_where_it_leads_to_the_root() {
        assert_eq!(of_crate("use super::gpu;", 1), ["gpu"]);
        assert_eq!(of_crate("use super::sibling;", 2), [""; 0]);
        assert_eq!(of_crate("use super::super::{gpu, mask};", 2), ["gpu", "mask"]);
    }

    #[test]
    fn comments_and_strings_do_not_count() {
        let text = "//! crate::gpu\n/* crate::gpu /* nested */ crate::mask */ let a = \"crate::gpu \\\" crate::b\";\n\
                    let quote = '\"'; use crate::shape;";
        assert_eq!(uses(text, 1).of_crate, [(3, "shape".to_string())]);
        assert_eq!(of_crate("r#\"{ \"crate::a\" }\"#; r\"crate::b\"; r#type; br#\"\"#; crate::c", 1), ["c"]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let text = "use crate::a;\n#[cfg(test)]\nmod tests { use crate::b; fn f() { '{'; } }\n\
                    #[cfg(test)] mod more;\nfn g<'a>() { '\\'' ; crate::c }";
        assert_eq!(of_crate(text, 1), ["a", "c"]);
    }

    #[test]
    fn lines_survive_continued_strings() {
        assert_eq!(uses("let a = \"x\\\n y\";\ncrate::gpu", 1).of_crate, [(3, "gpu".to_string())]);
    }

    #[test]
    fn reexports_name_their_module() {
        let home =
            reexports("mod a;\npub use mask::{BlockGrid, runs::Run};\npub use shape::Shape;\nuse x::Y;");
        assert_eq!(home["BlockGrid"], "mask");
        assert_eq!(home["Run"], "mask");
        assert_eq!(home["Shape"], "shape");
        assert!(!home.contains_key("Y"));
    }
}
