//! The rules of dependence, checked in the source text.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | between the folders of `src`: `pattern -> mask -> gpu`; the reference stands apart from what it judges |
//! | `wgsl.rs` | the kernel knows no pattern |
//! | `circles.rs`, `modules.rs` | no two files of a crate need each other |
//! | `packages.rs` | no crate compiles another's files; no test is hidden |
//! | `rust.rs` | what a Rust file names |
//!
//! The compiler enforces none of it inside one crate, so this does. Comments and the modules of unit tests may name
//! anything.

mod circles;
mod modules;
mod packages;
mod rust;
mod wgsl;

use std::collections::{BTreeSet, HashMap};
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

const RULES: [Rule; 5] = [
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
        only: &[
            "shape",
            "pattern",
            "error",
            "element",
            "construct",
            "inputs",
            "position",
            "counter",
            "linear",
            "linformer",
            "lsh",
            "path",
            "recurrent",
            "integers",
            "attention",
            "layout",
            "score",
        ],
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
    Rule {
        folder: "wgsl",
        never: &["pattern", "mask", "gpu", "reference", "tune"],
        only: &[],
        never_crates: &["wgpu", "pollster"],
        why: "the text of a kernel follows from sizes; who attends to whom, and what runs it, are not its business",
    },
];

/// Circles that were there before the rule, by their files; to be opened, one after the other. One that is no longer a
/// circle of just these files must go from the list.
const KNOWN: &[&[&str]] = &[];

/// Checks the tree at `root`, and prints every violation.
pub(crate) fn check(root: &Path) -> Result<()> {
    refuse(root, KNOWN)
}

/// [`check`], with these circles known.
fn refuse(root: &Path, known: &[&[&str]]) -> Result<()> {
    let mut violations = violations(root)?;
    violations.extend(crates(root, known)?);
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

/// Every violation of the rules for all crates below `root`: circles that are not known, and files of others.
fn crates(root: &Path, known: &[&[&str]]) -> Result<Vec<String>> {
    let mut known: Vec<BTreeSet<PathBuf>> =
        known.iter().map(|files| files.iter().map(|file| root.join(file)).collect()).collect();
    let mut violations = Vec::new();
    for package in packages::packages(root)? {
        violations.extend(packages::unrun(&package)?);
        for file in packages::sources(&package)? {
            let found = packages::strays(&package, &file)?;
            violations.extend(found.into_iter().map(|what| format!("{}: {what}", file.display())));
        }
        for crate_root in packages::roots(&package)? {
            for (files, message) in circles::circles(&crate_root)? {
                match known.iter().position(|known| *known == files) {
                    Some(at) => drop(known.swap_remove(at)),
                    None => violations.push(format!("{}: {message}", crate_root.display())),
                }
            }
        }
    }
    let opened = known.into_iter().map(|files| {
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        format!("no longer a circle, take it from the known ones: {}", files.join(", "))
    });
    violations.extend(opened);
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

/// The kernel, its libraries and its tiles.
fn kernel_files(root: &Path) -> Result<Vec<PathBuf>> {
    let shaders = root.join("shaders");
    let mut found = below(&shaders.join("lib"), "wgsl")?;
    found.extend(below(&shaders.join("tile"), "wgsl")?);
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Files in a folder of their own, gone at the end.
    pub(super) struct Planted {
        pub(super) root: PathBuf,
    }

    impl Planted {
        pub(super) fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("xtask-rules-{}-{number}", std::process::id());
            let planted = Self { root: std::env::temp_dir().join(name) };
            files.iter().for_each(|(path, text)| planted.write(path, text));
            planted
        }

        pub(super) fn write(&self, path: &str, text: &str) {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

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
        let planted = Planted::new(&[]);
        let (root, write) = (&planted.root, |path: &str, text: &str| planted.write(path, text));
        write("src/lib.rs", "pub use mask::BlockMask;");
        write("src/pattern/mod.rs", "use super::BlockMask;");
        write("src/pattern/causal.rs", "use super::Pattern;");
        write("src/mask/mod.rs", "");
        write("src/reference/mod.rs", "");
        write("src/gpu/mod.rs", "");
        write("src/wgsl/tile.rs", "use crate::pattern::Causal;");
        write("shaders/attention.wgsl", "const WINDOW = 1u;");
        write("shaders/tile/direct.wgsl", "fn causal_tile() {}");
        let found = violations(root).unwrap();
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].contains("`pattern` may not use `crate::BlockMask`"), "{found:?}");
        assert!(found[1].contains("`wgsl` may not use `crate::pattern`"), "{found:?}");
        assert!(found[2].contains("`causal_tile`") && found[3].contains("`WINDOW`"), "{found:?}");
        assert_eq!(refuse(root, &[]).unwrap_err().to_string(), "4 violations");

        write("src/pattern/mod.rs", "");
        write("src/wgsl/tile.rs", "use crate::element::ElementType;");
        write("shaders/attention.wgsl", "");
        write("shaders/tile/direct.wgsl", "");
        refuse(root, &[]).unwrap();
        fs::remove_dir_all(root.join("src/gpu")).unwrap();
        assert!(refuse(root, &[]).unwrap_err().to_string().contains("no source of `gpu`"));
    }

    #[test]
    fn circles_are_refused_in_every_crate_and_known_ones_only_while_they_are_there() {
        let planted = Planted::new(&[
            ("Cargo.toml", ""),
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "use crate::b::B; pub struct A;"),
            ("src/b.rs", "use crate::a::A; pub struct B;"),
            ("tool/Cargo.toml", ""),
            ("tool/src/main.rs", "mod c; #[path = \"../../src/a.rs\"] mod a;"),
            ("tool/src/c.rs", ""),
        ]);
        let known: &[&[&str]] = &[&["src/a.rs", "src/b.rs"]];
        let found = crates(&planted.root, &[]).unwrap();
        assert!(found.len() == 2 && found[0].contains("src/lib.rs: a circle: a needs b"), "{found:?}");
        assert!(found[1].contains("tool/src/main.rs: line 1: `../../src/a.rs`"), "{found:?}");
        assert_eq!(crates(&planted.root, known).unwrap(), found[1..]);
        planted.write("tool/src/main.rs", "mod c;");
        planted.write("src/b.rs", "pub struct B;");
        assert_eq!(crates(&planted.root, &[]).unwrap(), [""; 0]);
        let found = crates(&planted.root, known).unwrap();
        assert!(found.len() == 1 && found[0].starts_with("no longer a circle"), "{found:?}");
    }
}
