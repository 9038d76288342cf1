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
struct Token<'a> {
    line: usize,
    text: &'a str,
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
    let tokens = tokens(&code);
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
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The text's pieces, with the lines they are on.
fn tokens(code: &str) -> Vec<Token<'_>> {
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

/// The text with comments and the insides of strings blanked; lines stay where they are.
pub(super) fn without_comments_and_strings(text: &str) -> String {
    #[derive(Clone, Copy)]
    enum State {
        Code,
        Line,
        Block(usize),
        Quoted,
    }
    let mut state = State::Code;
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let mut step = 1;
        let mut keep = false;
        state = match (state, c, next) {
            (State::Code, '/', Some('/')) => State::Line,
            (State::Code, '/', Some('*')) => {
                step = 2;
                State::Block(1)
            }
            // A quote as a character literal opens no string.
            (State::Code, '"', _) if !out.ends_with('\'') => State::Quoted,
            (State::Code, ..) => {
                keep = true;
                State::Code
            }
            (State::Line, '\n', _) => State::Code,
            (State::Block(depth), '*', Some('/')) => {
                step = 2;
                if depth == 1 { State::Code } else { State::Block(depth - 1) }
            }
            (State::Block(depth), '/', Some('*')) => {
                step = 2;
                State::Block(depth + 1)
            }
            (State::Quoted, '\\', _) => {
                step = 2;
                State::Quoted
            }
            (State::Quoted, '"', _) => State::Code,
            (state, ..) => state,
        };
        out.push(if keep || c == '\n' { c } else { ' ' });
        if step == 2 {
            // A continued line of a string keeps its line break.
            out.push(if chars.next() == Some('\n') { '\n' } else { ' ' });
        }
    }
    out
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
