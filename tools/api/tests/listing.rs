//! The tool's command line, run as `cargo xtask api` runs it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn api(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_api")).args(arguments).output().expect("the tool runs")
}

/// A file with this text, which the caller removes.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("wgpu-attention-{}-{name}", std::process::id()));
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn another_format_is_refused_and_both_are_named() {
    let reads = String::from_utf8(api(&["--format"]).stdout).unwrap();
    let json = file("format.json", "{\"format_version\": 1}");
    let listing = file("format.txt", "");
    let output = api(&[json.to_str().unwrap(), listing.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    fs::remove_file(json).unwrap();
    fs::remove_file(listing).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("format 1;") && said.contains(reads.trim()), "{said}");
}

#[test]
fn what_is_missing_is_named() {
    let said = |arguments: &[&str]| String::from_utf8_lossy(&api(arguments).stderr).into_owned();
    assert!(said(&["/nowhere/a.json", "/nowhere/b.txt"]).contains("/nowhere/b.txt"));
    assert!(said(&["/nowhere/a.json", "/nowhere/b.txt", "--bless"]).contains("/nowhere/a.json"));
    assert!(said(&["alone"]).contains("alone"));
}
