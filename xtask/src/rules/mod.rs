//! The rules of dependence between the folders, checked in the source text.
//!
//! `pattern -> mask -> gpu`; the reference stands apart from what it judges; the kernel knows no pattern. The compiler
//! does not enforce any of it inside one crate, so this does. Comments and the modules of unit tests may name anything.

mod rust;
mod wgsl;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What the code of one folder of `src` may use of the crate.
struct Rule {
    /// The folder, which is a module.
    folder: &'static str,
    /// Modules of the crate that it may not name.
    never: &'static [&'static str],
    /// Where not empty: the only modules of the crate, besides its own, that it may name.
    only: &'static [&'static str],
    /// Crates it may not name.
    never_crates: &'static [&'static str],
    /// The reason, for the message.
    why: &'static str,
}

const RULES: [Rule; 4] = [
    Rule {
        folder: "pattern",
        never: &["mask", "gpu", "wgsl", "reference"],
        only: &[],
        never_crates: &["wgpu", "pollster"],
        why: "a pattern is a set of pairs; it knows neither blocks nor devices",
    },
    Rule {
        folder: "mask",
        never: &["gpu", "wgsl", "reference"],
        only: &[],
        never_crates: &["wgpu", "pollster"],
        why: "a mask is data; what runs it depends on it",
    },
    Rule {
        folder: "reference",
        never: &[],
        only: &["shape", "pattern", "error", "element", "inputs", "counter", "lsh", "path"],
        never_crates: &["wgpu", "pollster", "bytemuck"],
        why: "the oracle shares nothing with what it judges",
    },
    Rule {
        folder: "gpu",
        never: &["reference"],
        only: &[],
        never_crates: &[],
        why: "what is judged does not use its judge",
    },
];

/// Checks the tree at `root`, and prints every violation.
pub(crate) fn check(root: &Path) -> Result<()> {
    let violations = violations(root)?;
    violations.iter().for_each(|violation| eprintln!("   {violation}"));
    ensure!(violations.is_empty(), "{} violations", violations.len());
    Ok(())
}

/// Every violation in the tree at `root`, one line each.
fn violations(root: &Path) -> Result<Vec<String>> {
    let lib = fs::read_to_string(root.join("src/lib.rs")).context("src/lib.rs")?;
    let home = rust::reexports(&lib);
    let mut violations = Vec::new();
    for rule in &RULES {
        for file in files(&root.join("src"), rule.folder, "rs")? {
            let relative = file.strip_prefix(root.join("src")).unwrap_or(&file);
            let text = fs::read_to_string(&file)?;
            let found = rule.violations(&text, rust::depth(relative), &home);
            violations.extend(found.into_iter().map(|what| format!("{}: {what}", file.display())));
        }
    }
    for file in kernel_files(root)? {
        let found = wgsl::pattern_names(&fs::read_to_string(&file)?);
        violations.extend(found.into_iter().map(|what| format!("{}: {what}", file.display())));
    }
    Ok(violations)
}

impl Rule {
    /// What breaks the rule in a file of the folder; `home` maps names of the crate's root to their modules.
    fn violations(&self, text: &str, depth: usize, home: &HashMap<String, String>) -> Vec<String> {
        let uses = rust::uses(text, depth);
        let mut found = Vec::new();
        for (line, name) in uses.of_crate {
            let module = home.get(&name).unwrap_or(&name).as_str();
            let outside = !self.only.is_empty() && module != self.folder && !self.only.contains(&module);
            if outside || self.never.contains(&module) {
                found.push(format!(
                    "line {line}: `{}` may not use `crate::{name}`: {}",
                    self.folder, self.why
                ));
            }
        }
        for (line, name) in uses.words {
            if self.never_crates.contains(&name.as_str()) {
                found.push(format!("line {line}: `{}` may not use `{name}`: {}", self.folder, self.why));
            }
        }
        found
    }
}

/// The files of a module: `NAME.rs` and all below `NAME/`.
fn files(src: &Path, module: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = below(&src.join(module), extension)?;
    let single = src.join(format!("{module}.{extension}"));
    if single.is_file() {
        found.push(single);
    }
    ensure!(!found.is_empty(), "no source of `{module}` in {}", src.display());
    Ok(found)
}

/// The kernel and its libraries.
fn kernel_files(root: &Path) -> Result<Vec<PathBuf>> {
    let shaders = root.join("shaders");
    let mut found = below(&shaders.join("lib"), "wgsl")?;
    found.push(shaders.join("attention.wgsl"));
    Ok(found)
}

/// All files with this extension below a folder, in order; none where there is no folder.
fn below(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut found = Vec::new();
    for path in entries.into_iter().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(below(&path, extension)?);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(folder: &str) -> &'static Rule {
        RULES.iter().find(|rule| rule.folder == folder).unwrap()
    }

    fn broken(folder: &str, text: &str) -> usize {
        let home = HashMap::from([("BlockMask".to_string(), "mask".to_string())]);
        rule(folder).violations(text, 2, &home).len()
    }

    #[test]
    fn a_pattern_knows_neither_masks_nor_devices() {
        assert_eq!(broken("pattern", "use crate::mask::BlockMask;"), 1);
        assert_eq!(broken("pattern", "use crate::{shape::Shape, gpu::Plan};"), 1);
        assert_eq!(broken("pattern", "fn f() -> crate::BlockMask { todo!() }"), 1);
        assert_eq!(broken("pattern", "fn f(device: &wgpu::Device) {}"), 1);
        assert_eq!(broken("pattern", "let mask = 1; let gpu_count = mask; // crate::gpu, wgpu"), 0);
    }

    #[test]
    fn the_reference_stands_apart() {
        assert_eq!(broken("reference", "use crate::mask::BlockMask;"), 1);
        assert_eq!(broken("reference", "use crate::wgsl::Tile;"), 1);
        assert_eq!(
            broken("reference", "use crate::{pattern::Pattern, shape::AttentionShape}; use rayon::x;"),
            0
        );
        assert_eq!(broken("reference", "use crate::reference::bound;"), 0);
    }

    #[test]
    fn the_gpu_never_uses_its_judge() {
        assert_eq!(broken("gpu", "use crate::reference;"), 1);
        assert_eq!(broken("gpu", "use super::super::reference;"), 1);
        assert_eq!(broken("gpu", "let reference = 1; use crate::mask; use wgpu::Device;"), 0);
        assert_eq!(broken("mask", "use crate::gpu;"), 1);
        assert_eq!(broken("mask", "use crate::pattern;"), 0);
    }

    #[test]
    fn a_tree_is_checked_file_by_file() {
        let root = std::env::temp_dir().join(format!("xtask-rules-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "pub use mask::BlockMask;");
        write("src/pattern/mod.rs", "use super::BlockMask;");
        write("src/pattern/causal.rs", "use super::Pattern;");
        write("src/mask/mod.rs", "");
        write("src/reference/mod.rs", "");
        write("src/gpu/mod.rs", "");
        write("shaders/attention.wgsl", "const WINDOW = 1u;");
        let found = violations(&root).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`pattern` may not use `crate::BlockMask`"), "{found:?}");
        assert!(found[1].contains("`WINDOW`"), "{found:?}");
        assert_eq!(check(&root).unwrap_err().to_string(), "2 violations");

        write("src/pattern/mod.rs", "");
        write("shaders/attention.wgsl", "");
        check(&root).unwrap();
        fs::remove_dir_all(root.join("src/gpu")).unwrap();
        assert!(check(&root).unwrap_err().to_string().contains("no source of `gpu`"));
        fs::remove_dir_all(&root).unwrap();
    }
}
