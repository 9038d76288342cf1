//! No two files of a crate need each other.
//!
//! A file needs another where its code (not its unit tests) imports or names what that one defines; re-exports are
//! followed to where the name is defined. What does not count: a module and those inside of it. `mod.rs` declares its
//! children, re-exports them and puts them together, and they may use what it defines for all of them: that is one room.
//! Every other circle is refused, however long: what the files share belongs into a file that needs neither.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::modules::Tree;

/// One file that needs another, by their places, with the line that says so.
type Need = (usize, usize, usize);

/// The circles of the crate with this root: each the files in it, with a message.
pub(super) fn circles(root: &Path) -> Result<Vec<(BTreeSet<PathBuf>, String)>> {
    let tree = Tree::read(root).with_context(|| format!("the modules of {}", root.display()))?;
    let needs = needs(&tree);
    let mut left: BTreeSet<usize> = (0..tree.files.len()).collect();
    let mut found = Vec::new();
    while let Some(one) = left.pop_first() {
        let forth = reached(one, &needs, |(from, to, _)| (from, to));
        let back = reached(one, &needs, |(from, to, _)| (to, from));
        let circle: BTreeSet<usize> = forth.intersection(&back).copied().collect();
        left.retain(|file| !circle.contains(file));
        if circle.len() > 1 {
            let files = circle.iter().map(|&file| tree.files[file].0.clone()).collect();
            found.push((files, message(&tree, &circle, &needs)));
        }
    }
    Ok(found)
}

/// Who needs whom: once for each pair, with the first line.
fn needs(tree: &Tree) -> Vec<Need> {
    let mut needs: Vec<Need> = Vec::new();
    for used in &tree.uses {
        let Some(to) = tree.target(used) else { continue };
        let inside = tree.files[to].1.starts_with(&tree.files[used.file].1);
        if !inside && !needs.iter().any(|&(from, of, _)| (from, of) == (used.file, to)) {
            needs.push((used.file, to, used.line));
        }
    }
    needs
}

/// All that is needed by one file, directly or not, and the file itself.
fn reached(one: usize, needs: &[Need], ends: fn(Need) -> (usize, usize)) -> BTreeSet<usize> {
    let (mut reached, mut next) = (BTreeSet::from([one]), vec![one]);
    while let Some(at) = next.pop() {
        let further = needs.iter().map(|&need| ends(need)).filter(|&(from, _)| from == at);
        next.extend(further.map(|(_, to)| to).filter(|&to| reached.insert(to)));
    }
    reached
}

/// `a circle: a.rs needs b.rs (line 3); b.rs needs a.rs (line 1)`.
fn message(tree: &Tree, circle: &BTreeSet<usize>, needs: &[Need]) -> String {
    let name = |file: usize| match &tree.files[file].1[..] {
        [] => "the crate's root".to_string(),
        path => path.join("::"),
    };
    let within = needs.iter().filter(|(from, to, _)| circle.contains(from) && circle.contains(to));
    let each: Vec<_> =
        within.map(|&(from, to, line)| format!("{} needs {} (line {line})", name(from), name(to))).collect();
    format!("a circle: {}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Planted;
    use super::*;

    /// The circles of a planted crate, each as its files' names.
    fn of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let planted = Planted::new(files);
        let found = circles(&planted.root.join("lib.rs")).unwrap();
        let name = |path: &PathBuf| path.strip_prefix(&planted.root).unwrap().display().to_string();
        found.iter().map(|(files, _)| files.iter().map(name).collect()).collect()
    }

    #[test]
    fn two_files_that_need_each_other_are_a_circle() {
        let lib = ("lib.rs", "mod a; mod b;");
        let b = ("b.rs", "use crate::a::A; pub struct B;");
        assert_eq!(of(&[lib, ("a.rs", "pub struct A(crate::b::B);"), b]), [["a.rs", "b.rs"]]);
        assert_eq!(of(&[lib, ("a.rs", "use super::b; pub struct A(b::B);"), b]), [["a.rs", "b.rs"]]);
        assert_eq!(of(&[lib, ("a.rs", "use crate::{b::{B as C}}; pub struct A(C);"), b]), [["a.rs", "b.rs"]]);
        assert_eq!(of(&[lib, ("a.rs", "use super::b::*; pub struct A(B);"), b]), [["a.rs", "b.rs"]]);
        assert_eq!(of(&[lib, ("a.rs", "pub struct A;"), b]), [[""; 0]; 0]);
    }

    #[test]
    fn a_longer_circle_is_found_and_said() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b::B;\npub struct A;"),
            ("b.rs", "pub use crate::c::C; pub struct B;"),
            ("c.rs", "\nfn f() -> crate::a::A { todo!() } pub struct C;"),
            ("d.rs", "use crate::a::A; use crate::c::C;"),
        ];
        assert_eq!(of(&files), [["a.rs", "b.rs", "c.rs"]]);
        let planted = Planted::new(&files);
        let said = &circles(&planted.root.join("lib.rs")).unwrap()[0].1;
        assert_eq!(said, "a circle: a needs b (line 1); b needs c (line 1); c needs a (line 2)");
    }

    #[test]
    fn reexports_are_followed_to_the_definition() {
        // `one` asks the parent for `Two`, which is the sibling's, and the sibling asks it for `One`.
        let files = [
            ("lib.rs", "pub mod room;"),
            ("room/mod.rs", "mod one; mod two; pub use one::One; pub use two::Two;"),
            ("room/one.rs", "use super::Two; pub struct One;"),
            ("room/two.rs", "use crate::room::One; pub struct Two;"),
        ];
        assert_eq!(of(&files), [["room/one.rs", "room/two.rs"]]);
        // The same through `*`.
        let mut globs = files;
        globs[1].1 = "mod one; mod two; pub use one::*; pub use two::*;";
        assert_eq!(of(&globs), [["room/one.rs", "room/two.rs"]]);
    }

    #[test]
    fn a_module_and_its_children_are_one_room() {
        let room = ("room/mod.rs", "mod one; pub use one::One; pub struct Shared; fn f() { one::run() }");
        let one = ("room/one.rs", "use super::Shared; pub struct One; pub fn run() {}");
        assert_eq!(of(&[("lib.rs", "mod room;"), room, one]), [[""; 0]; 0]);
        // Not so by way of another room.
        let other = ("other.rs", "use crate::room::One;");
        let room = ("room/mod.rs", "mod one; pub use one::One; pub struct Shared(crate::other::Other);");
        assert_eq!(
            of(&[("lib.rs", "mod room; mod other;"), room, one, other]),
            [["other.rs", "room/mod.rs", "room/one.rs"]]
        );
    }

    #[test]
    fn unit_tests_comments_and_modules_in_a_file_do_not_count() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "// crate::b::B\npub struct A; mod inner { use super::A; }\n#[cfg(test)] mod tests { use crate::b::B; }",
            ),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ];
        assert_eq!(of(&files), [[""; 0]; 0]);
        let inner =
            [files[0], ("a.rs", "mod inner { pub fn f() { crate::b::g() } }\npub struct A;"), files[2]];
        assert_eq!(of(&inner), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn files_are_found_where_the_attribute_says() {
        let files = [
            ("lib.rs", "#[path = \"deep/a.rs\"]\nmod a;\nmod b;"),
            ("deep/a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::a::A; pub struct B;"),
        ];
        assert_eq!(of(&files), [["b.rs", "deep/a.rs"]]);
    }
}
