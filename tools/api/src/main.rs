//! Compares what the crate offers with the committed listing of it. `cargo xtask api` runs it.
//!
//! - [`mod@listing`]: the lines;
//! - here: rustdoc's JSON in, the listing compared or written.

mod listing;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use public_api::Builder;
use rustdoc_types::FORMAT_VERSION;
use similar::TextDiff;

use listing::Item;

/// The listing's first line.
const HEAD: &str = "# Everything public, with all features. `cargo xtask api --bless` writes it.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// `--format` prints which format of JSON is read; `JSON LISTING [--bless]` compares or writes.
fn run(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--format"] => println!("{FORMAT_VERSION}"),
        [json, file, "--bless"] => {
            fs::write(file, listing(json)?).with_context(|| format!("cannot write {file}"))?
        }
        [json, file] => {
            let committed = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            if let Some(changes) = changes(&committed, &listing(json)?) {
                println!("{changes}");
                return Ok(ExitCode::FAILURE);
            }
        }
        _ => bail!("takes JSON LISTING [--bless], got {arguments:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The listing of the crate that a file of rustdoc's describes.
fn listing(json: &str) -> Result<String> {
    let text = fs::read_to_string(json).with_context(|| format!("cannot read {json}"))?;
    let format = serde_json::from_str::<serde_json::Value>(&text)?["format_version"].as_u64();
    let format = format.with_context(|| format!("{json} names no format"))?;
    ensure!(
        format == u64::from(FORMAT_VERSION),
        "{json} has format {format}; public-api reads {FORMAT_VERSION}"
    );
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .include_function_parameter_names(true)
        .build()?;
    let items: Vec<_> = api
        .items()
        .map(|item| Item { id: item.id(), parent: item.parent_id(), text: item.to_string() })
        .collect();
    Ok(format!("{HEAD}\n{}\n", listing::lines(&items).join("\n")))
}

/// What is gone and what is new, where there is any.
fn changes(committed: &str, now: &str) -> Option<String> {
    let diff = TextDiff::from_lines(committed, now);
    (diff.ratio() < 1.0).then(|| diff.unified_diff().context_radius(0).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_side_by_side() {
        let old = format!("{HEAD}\npub fn crate::f(a: u32)\npub fn crate::g()\n");
        assert_eq!(changes(&old, &old), None);
        let shown = changes(&old, &old.replace("u32", "u64")).unwrap();
        assert!(shown.contains("-pub fn crate::f(a: u32)\n+pub fn crate::f(a: u64)\n"), "{shown}");
        assert!(!shown.contains("crate::g"), "{shown}");
        let shown = changes(&old, &format!("{old}pub fn crate::h()\n")).unwrap();
        assert!(shown.contains("+pub fn crate::h()"), "{shown}");
    }
}
