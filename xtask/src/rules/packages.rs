//! The packages of the tree: where each lies, the roots of its crates, that no crate compiles another's files, and that all tests are run.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::modules::path_attribute;
use super::{below, rust};

/// Folders that hold no sources of ours.
const SKIPPED: [&str; 3] = ["target", "artifacts", "corpus"];

/// Folders whose files, and the `main.rs` of whose folders, are crates of their own.
const CRATES: [&str; 5] = ["src/bin", "tests", "examples", "benches", "fuzz_targets"];

/// The folders of all packages at or below this one.
pub(super) fn packages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if folder.join("Cargo.toml").is_file() {
        found.push(folder.to_path_buf());
    }
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() && !hidden && !SKIPPED.iter().any(|skipped| name == *skipped) {
            found.extend(packages(&entry.path())?);
        }
    }
    Ok(found)
}

/// The roots of a package's crates.
pub(super) fn roots(package: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<_> = ["src/lib.rs", "src/main.rs"].map(|name| package.join(name)).into();
    for folder in CRATES.map(|folder| package.join(folder)) {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let single = path.extension().is_some_and(|extension| extension == "rs");
            found.push(if single { path } else { path.join("main.rs") });
        }
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

/// The sources of a package, without those of packages inside of it.
pub(super) fn sources(package: &Path) -> Result<Vec<PathBuf>> {
    let mut found = below(&package.join("src"), "rs")?;
    for folder in CRATES {
        found.extend(below(&package.join(folder), "rs")?);
    }
    found.retain(|path| home(path) == Some(package));
    Ok(found)
}

/// The package that a file belongs to.
fn home(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|folder| folder.join("Cargo.toml").is_file())
}

/// Every `#[path]` and `include!` of a package's file that leads out of the package, one message each.
pub(super) fn strays(package: &Path, file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let code = rust::without_comments_and_strings(&text);
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let given = if line.contains("#[path") {
            path_attribute(&lines, index + 1)
        } else if line.contains("include!(") {
            lines[index].split('"').nth(1).map(String::from)
        } else {
            None
        };
        let Some(given) = given else { continue };
        let target = normal(&file.with_file_name("").join(&given));
        if home(&target) != Some(package) {
            found.push(format!(
                "line {}: `{given}` is another crate's file: what two crates share is a crate",
                index + 1
            ));
        }
    }
    Ok(found)
}

/// Tests that would never run, one message each: a crate's whose manifest says `test = false`, which saves the linking of no tests.
pub(super) fn unrun(package: &Path) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(package.join("Cargo.toml"))?;
    let main = package.join("src/main.rs");
    let mut found = Vec::new();
    let mut section = "";
    for line in manifest.lines() {
        section = if line.starts_with('[') { line } else { section };
        if line.trim() != "test = false" {
            continue;
        }
        let mut files = sources(package)?;
        files.retain(|file| file.starts_with(package.join("src")) && (*file == main) == (section != "[lib]"));
        for file in files {
            let code = rust::without_comments_and_strings(&fs::read_to_string(&file)?);
            if code.contains("#[test]") || code.contains("proptest!") {
                found
                    .push(format!("{}: has tests, which `test = false` in Cargo.toml hides", file.display()));
            }
        }
    }
    Ok(found)
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::super::tests::Planted;
    use super::*;

    #[test]
    fn a_path_may_not_leave_its_package() {
        let planted = Planted::new(&[
            ("Cargo.toml", ""),
            ("src/lib.rs", "#[path = \"../tests/a.rs\"]\nmod a;\n#[path = \"../tool/src/b.rs\"]\nmod b;\n"),
            (
                "src/c.rs",
                "// #[path = \"../tool/src/b.rs\"]\ninclude!(\"../tool/src/b.rs\");\n#[path = \"../../out.rs\"] mod d;",
            ),
            ("tests/a.rs", ""),
            ("tool/Cargo.toml", ""),
            ("tool/src/b.rs", "#[path = \"../../tests/a.rs\"]\nmod a;"),
        ]);
        let root = &planted.root;
        assert_eq!(packages(root).unwrap(), [root.clone(), root.join("tool")]);
        let strays = |package: &Path, file: &str| strays(package, &root.join(file)).unwrap();
        let found = strays(root, "src/lib.rs");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("line 3: `../tool/src/b.rs` is another crate's file"), "{found:?}");
        let found = strays(root, "src/c.rs");
        assert!(
            found.len() == 2 && found[0].starts_with("line 2") && found[1].starts_with("line 3"),
            "{found:?}"
        );
        assert_eq!(strays(&root.join("tool"), "tool/src/b.rs").len(), 1);
    }

    #[test]
    fn tests_that_never_run_are_found() {
        let manifest = |of: &str| format!("[package]\n{of}\nname = \"a\"\ntest = false\n[dependencies]\n");
        let (lib, bin) = (manifest("[lib]"), manifest("[[bin]]"));
        let test = "fn f() {}\n#[test]\nfn t() {}\n";
        let planted = Planted::new(&[
            ("Cargo.toml", "[lib]\ntest = true\n"),
            ("src/lib.rs", test),
            ("lib/Cargo.toml", &lib),
            ("lib/src/lib.rs", "// #[test]\n"),
            ("lib/src/deep/a.rs", test),
            ("lib/src/main.rs", test),
            ("lib/tests/a.rs", test),
            ("bin/Cargo.toml", &bin),
            ("bin/src/lib.rs", test),
            ("bin/src/main.rs", "proptest! {}\n"),
        ]);
        let found = |package: &str| unrun(&planted.root.join(package)).unwrap();
        assert!(found("").is_empty(), "{:?}", found(""));
        assert!(
            found("lib").len() == 1 && found("lib")[0].contains("deep/a.rs: has tests"),
            "{:?}",
            found("lib")
        );
        assert!(
            found("bin").len() == 1 && found("bin")[0].contains("main.rs: has tests"),
            "{:?}",
            found("bin")
        );
    }

    #[test]
    fn crates_are_found_by_their_roots() {
        let planted = Planted::new(&[
            ("Cargo.toml", ""),
            ("src/lib.rs", ""),
            ("src/deep/mod.rs", ""),
            ("tests/one.rs", ""),
            ("tests/two/main.rs", ""),
            ("tests/two/part.rs", ""),
            ("tests/data/mod.rs", ""),
        ]);
        let root = &planted.root;
        let expected = ["src/lib.rs", "tests/one.rs", "tests/two/main.rs"].map(|path| root.join(path));
        assert_eq!(roots(root).unwrap(), expected);
        assert_eq!(sources(root).unwrap().len(), 6);
    }
}
