//! The modules of a crate, read from its sources: which file holds each, what each imports, and what its text names.
//!
//! Paths are followed as the compiler follows them: through `crate`, `self` and `super`, through modules, imports and
//! re-exports, to the module that defines the name. What a macro writes, and methods called on values, are not seen.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::rust::{Token, is_word, tokens, without_comments_and_strings, without_test_modules};

/// A path in the text of a module.
pub(super) struct Use {
    /// The file, as a place in [`Tree::files`].
    pub(super) file: usize,
    pub(super) line: usize,
    scope: Vec<String>,
    path: Vec<String>,
}

/// A module: a file, or one written inside of another.
#[derive(Default)]
struct Scope {
    file: usize,
    /// Imports by the name they have here.
    names: HashMap<String, Vec<String>>,
    /// Imports of all that a module has.
    globs: Vec<Vec<String>>,
    /// What is defined here.
    defines: HashSet<String>,
    /// The imports that others can have from here.
    exports: HashSet<String>,
}

/// A crate.
#[derive(Default)]
pub(super) struct Tree {
    /// Its files, with the paths of their modules.
    pub(super) files: Vec<(PathBuf, Vec<String>)>,
    pub(super) uses: Vec<Use>,
    scopes: HashMap<Vec<String>, Scope>,
}

/// Longer chains of re-exports are circles of their own.
const LONGEST_CHAIN: usize = 16;

impl Tree {
    /// Reads the crate with this root.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let folder = root.parent().context("a root lies in a folder")?;
        tree.add(root, folder, Vec::new())?;
        Ok(tree)
    }

    /// Reads the file of a module, whose children lie in `folder`.
    fn add(&mut self, path: &Path, folder: &Path, module: Vec<String>) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let code = without_comments_and_strings(&text);
        let file = self.files.len();
        self.files.push((path.to_path_buf(), module.clone()));
        self.scopes.insert(module.clone(), Scope { file, ..Scope::default() });
        let tokens = without_test_modules(tokens(&code));
        let mut reader = Reader { tree: self, tokens: &tokens, file, at: 0, children: Vec::new() };
        reader.module(&module);
        for (child, line) in reader.children {
            let name = child.last().context("a child has a name")?.clone();
            let lines: Vec<&str> = text.lines().collect();
            let inline: PathBuf = child[module.len()..child.len() - 1].iter().collect();
            let (path, below) = match path_attribute(&lines, line) {
                Some(given) => {
                    let path = path.parent().context("a file lies in a folder")?.join(given);
                    let below = path.parent().context("a file lies in a folder")?.to_path_buf();
                    (path, below)
                }
                None => {
                    let below = folder.join(inline).join(&name);
                    let single = below.with_extension("rs");
                    (if single.is_file() { single } else { below.join("mod.rs") }, below)
                }
            };
            if !path.is_file() {
                bail!("line {}: no file of the module `{name}`", line);
            }
            self.add(&path, &below, child)?;
        }
        Ok(())
    }

    /// The file that defines what a path names; none where that is outside of the crate, or a module as a whole.
    pub(super) fn target(&self, used: &Use) -> Option<usize> {
        let path = self.absolute(&used.scope, &used.path, 0)?;
        self.definer(&path, 0).map(|scope| self.scopes[&scope].file)
    }

    /// A path from the crate's root.
    fn absolute(&self, scope: &[String], path: &[String], chain: usize) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut from = scope.to_vec();
        match first.as_str() {
            _ if chain > LONGEST_CHAIN => return None,
            "crate" => return Some(rest.to_vec()),
            "self" => return Some([scope, rest].concat()),
            "super" => {
                let supers = path.iter().take_while(|name| *name == "super").count();
                from.truncate(scope.len().checked_sub(supers)?);
                return Some([&from, &path[supers..]].concat());
            }
            name => from.push(name.into()),
        }
        if self.scopes.contains_key(&from) {
            return Some([&from, rest].concat());
        }
        let import = self.scopes.get(scope)?.names.get(first)?;
        // `use name::name` and `use name as name` mean what is outside.
        let import = import.first().filter(|name| *name != first).map(|_| import)?;
        Some([self.absolute(scope, import, chain + 1)?, rest.to_vec()].concat())
    }

    /// The module that defines the path's name; none for a module itself.
    fn definer(&self, path: &[String], chain: usize) -> Option<Vec<String>> {
        for at in 0..path.len() {
            let (module, rest) = path.split_at(at);
            if self.scopes.contains_key(&path[..=at]) {
                continue;
            }
            let scope = self.scopes.get(module)?;
            let onward = |import: &[String], rest: &[String]| {
                let import = self.absolute(module, import, 0)?;
                self.definer(&[&import, rest].concat(), chain + 1)
            };
            if chain > LONGEST_CHAIN || scope.defines.contains(&rest[0]) {
                return Some(module.to_vec());
            }
            if let Some(import) = scope.names.get(&rest[0]) {
                return onward(import, &rest[1..]);
            }
            let has = |glob: &&Vec<String>| {
                let of = self.absolute(module, glob, 0).and_then(|module| self.scopes.get(&module));
                of.is_some_and(|it| it.defines.contains(&rest[0]) || it.exports.contains(&rest[0]))
            };
            return match scope.globs.iter().find(has) {
                Some(glob) => onward(glob, rest),
                None => Some(module.to_vec()),
            };
        }
        None
    }
}

/// The file that `#[path = "..."]` names for the module that is declared in this line (the first is 1).
pub(super) fn path_attribute(lines: &[&str], line: usize) -> Option<String> {
    let declared = lines.get(line - 1)?;
    let above = lines[..line - 1].iter().rev().take_while(|text| text.trim_start().starts_with("#["));
    let text = std::iter::once(declared).chain(above).find(|text| text.contains("#[path"))?;
    text.split('"').nth(1).map(String::from)
}

/// Goes over the text of a file.
struct Reader<'a> {
    tree: &'a mut Tree,
    tokens: &'a [Token<'a>],
    file: usize,
    at: usize,
    /// Modules in files of their own, with the lines that declare them.
    children: Vec<(Vec<String>, usize)>,
}

impl Reader<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    /// A module's text, up to its closing brace.
    fn module(&mut self, scope: &[String]) {
        let mut nesting = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "{" => nesting += 1,
                "}" if nesting == 0 => return,
                "}" => nesting -= 1,
                "use" => {
                    let exported = self.at > 0 && matches!(self.tokens[self.at - 1].text, "pub" | ")");
                    self.at += 1;
                    self.import(scope, Vec::new(), exported);
                    continue;
                }
                "mod" if is_word(self.text(1)) => {
                    self.child(scope);
                    continue;
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union"
                    if nesting == 0 =>
                {
                    let name = self.text(1).to_string();
                    self.define(scope, name);
                }
                "macro_rules" => {
                    let name = self.text(2).to_string();
                    self.define(scope, name);
                }
                word if is_word(word) && self.text(1) == "::" => {
                    self.path(scope);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn scope(&mut self, scope: &[String]) -> &mut Scope {
        let file = self.file;
        self.tree.scopes.entry(scope.to_vec()).or_insert_with(|| Scope { file, ..Scope::default() })
    }

    fn define(&mut self, scope: &[String], name: String) {
        if is_word(&name) {
            self.scope(scope).defines.insert(name);
        }
    }

    /// `mod name;` or `mod name { ... }`.
    fn child(&mut self, scope: &[String]) {
        let child = [scope, &[self.text(1).to_string()]].concat();
        let line = self.tokens[self.at].line;
        self.at += 2;
        if self.text(0) == "{" {
            self.at += 1;
            self.scope(&child);
            self.module(&child);
            self.at += 1;
        } else {
            self.children.push((child, line));
        }
    }

    /// A path in an expression or a type.
    fn path(&mut self, scope: &[String]) {
        let line = self.tokens[self.at].line;
        let continues = self.at > 0 && matches!(self.tokens[self.at - 1].text, "::" | ".");
        let mut path = vec![self.text(0).to_string()];
        while self.text(1) == "::" && is_word(self.text(2)) {
            path.push(self.text(2).to_string());
            self.at += 2;
        }
        self.at += 1;
        if !continues {
            self.tree.uses.push(Use { file: self.file, line, scope: scope.to_vec(), path });
        }
    }

    /// What follows `use`, or a path of a group.
    fn import(&mut self, scope: &[String], mut path: Vec<String>, exported: bool) {
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut name = None;
        while self.at < self.tokens.len() {
            let text = self.text(0).to_string();
            self.at += 1;
            match text.as_str() {
                "{" => {
                    while !matches!(self.text(0), "}" | "") {
                        self.import(scope, path.clone(), exported);
                    }
                    self.at += 1;
                    // What follows ends the statement, or separates this group from the next path.
                    self.at += usize::from(matches!(self.text(0), "," | ";"));
                    return;
                }
                "as" => {
                    name = Some(self.text(0).to_string());
                    self.at += 1;
                }
                "," | ";" => break,
                "}" => {
                    self.at -= 1;
                    break;
                }
                "self" if !path.is_empty() => {}
                "::" => {}
                _ => path.push(text),
            }
        }
        if path.last().is_some_and(|last| last == "*") {
            path.pop();
            // All names of a module: whatever they are, it is used.
            let whole = [path.clone(), vec!["*".into()]].concat();
            self.tree.uses.push(Use { file: self.file, line, scope: scope.to_vec(), path: whole });
            self.scope(scope).globs.push(path);
        } else if let Some(name) = name.or_else(|| path.last().cloned()) {
            if exported {
                self.scope(scope).exports.insert(name.clone());
            }
            self.scope(scope).names.insert(name, path.clone());
            self.tree.uses.push(Use { file: self.file, line, scope: scope.to_vec(), path });
        }
    }
}
