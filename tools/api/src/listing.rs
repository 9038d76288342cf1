//! The listing made of what rustdoc says: every item once, and short enough to be read.
//!
//! - An item that is to be had by several paths is listed in full by its shortest; by the others it has one line.
//! - Of a trait that a type implements there is a line, and none of the functions: they are the trait's.
//! - Paths of other crates are their last name: `Option`, not `core::option::Option`. Ours begin with `crate::`.

use std::collections::{HashMap, HashSet};

/// The crate's name in rustdoc's words.
const CRATE: &str = "wgpu_attention";

/// An item as public-api has it.
pub(crate) struct Item<Id> {
    pub(crate) id: Id,
    pub(crate) parent: Option<Id>,
    /// As Rust, with full paths.
    pub(crate) text: String,
}

/// The lines of the listing, in the order of the items.
pub(crate) fn lines<Id: Copy + Eq + std::hash::Hash>(items: &[Item<Id>]) -> Vec<String> {
    let of = |keep: fn(&str) -> bool| -> HashSet<Id> {
        items.iter().filter(|item| keep(&item.text)).map(|item| item.id).collect()
    };
    let (traits, modules) = (of(implements_trait), of(|text| text.starts_with("pub mod ")));
    let in_trait = |item: &Item<Id>| item.parent.is_some_and(|parent| traits.contains(&parent));
    let mut shortest: HashMap<Id, usize> = HashMap::new();
    // A function that a type leaves to the trait has the trait's id there, too, and maybe a shorter path.
    for item in items.iter().filter(|item| !in_trait(item)) {
        let length = shortest.entry(item.id).or_insert(usize::MAX);
        *length = item.text.len().min(*length);
    }
    let mut said = HashSet::new();
    let kept = items.iter().filter(|item| {
        let by_itself = item.parent.is_none_or(|parent| modules.contains(&parent));
        !in_trait(item)
            && !item.text.contains("::StructuralPartialEq for ")
            && (by_itself || item.text.len() == shortest[&item.id])
    });
    // From the end, where the root's own items are: what is equal stays there.
    let mut lines: Vec<_> =
        kept.map(|item| short(&item.text)).rev().filter(|line| said.insert(line.clone())).collect();
    lines.reverse();
    lines
}

/// Whether this is `impl Trait for Type`.
fn implements_trait(text: &str) -> bool {
    (text.starts_with("impl ") || text.starts_with("impl<") || text.starts_with("unsafe impl"))
        && text.contains(" for ")
}

/// An item with short paths.
fn short(text: &str) -> String {
    let mut line = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
        line += &rest[..start];
        rest = &rest[start..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        // The colon of `name: Type` is no path's.
        let path = rest[..end].trim_end_matches(':');
        match path.split_once("::") {
            Some((CRATE, own)) => line += &format!("crate::{own}"),
            Some((first, _)) if first.starts_with(|c: char| c.is_lowercase()) => {
                line += path.rsplit("::").next().unwrap_or(path)
            }
            _ if path == CRATE => line += "crate",
            _ => line += path,
        }
        rest = &rest[path.len()..];
    }
    line + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: u32, parent: Option<u32>, text: &str) -> Item<u32> {
        Item { id, parent, text: text.into() }
    }

    #[test]
    fn paths_are_short_and_ours_are_seen() {
        assert_eq!(
            short(
                "pub fn wgpu_attention::Gpu::run<'a>(&self, v: core::option::Option<&'a [u8]>) -> wgpu_attention::Result<()>"
            ),
            "pub fn crate::Gpu::run<'a>(&self, v: Option<&'a [u8]>) -> crate::Result<()>"
        );
        assert_eq!(short("pub use wgpu_attention::wgpu"), "pub use crate::wgpu");
        assert_eq!(short("pub mod wgpu_attention"), "pub mod crate");
        assert_eq!(short("pub const wgpu_attention::A::B: [Self; 4]"), "pub const crate::A::B: [Self; 4]");
        assert_eq!(
            short("pub type wgpu_attention::T::X = <T as a::b::C>::Y"),
            "pub type crate::T::X = <T as C>::Y"
        );
    }

    #[test]
    fn what_a_trait_provides_is_listed_although_types_inherit_it() {
        let items = [
            item(0, None, "pub mod wgpu_attention"),
            item(1, Some(0), "pub trait wgpu_attention::Pattern"),
            item(2, Some(1), "pub fn wgpu_attention::Pattern::why(&self)"),
            item(3, Some(0), "pub struct wgpu_attention::Full"),
            item(4, Some(3), "impl wgpu_attention::Pattern for wgpu_attention::Full"),
            item(2, Some(4), "pub fn wgpu_attention::Full::why(&self)"),
        ];
        assert!(lines(&items).contains(&"pub fn crate::Pattern::why(&self)".into()));
    }

    #[test]
    fn each_item_is_listed_once_by_its_shortest_path() {
        let items = [
            item(0, None, "pub mod wgpu_attention"),
            item(1, Some(0), "pub mod wgpu_attention::gpu"),
            item(2, Some(1), "pub struct wgpu_attention::gpu::Plan"),
            item(3, Some(2), "pub wgpu_attention::gpu::Plan::size: usize"),
            item(4, Some(2), "impl core::clone::Clone for wgpu_attention::Plan"),
            item(5, Some(4), "pub fn wgpu_attention::Plan::clone(&self) -> wgpu_attention::Plan"),
            item(2, Some(0), "pub struct wgpu_attention::Plan"),
            item(3, Some(2), "pub wgpu_attention::Plan::size: usize"),
            item(4, Some(2), "impl core::clone::Clone for wgpu_attention::Plan"),
            item(6, Some(2), "impl wgpu_attention::Plan"),
            item(7, Some(6), "pub fn wgpu_attention::Plan::bind(&self)"),
        ];
        assert_eq!(
            lines(&items),
            [
                "pub mod crate",
                "pub mod crate::gpu",
                "pub struct crate::gpu::Plan",
                "pub struct crate::Plan",
                "pub crate::Plan::size: usize",
                "impl Clone for crate::Plan",
                "impl crate::Plan",
                "pub fn crate::Plan::bind(&self)",
            ]
        );
    }
}
