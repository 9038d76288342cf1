//! The tool's command line, run as `cargo xtask web` runs it.

use std::process::{Command, Output};

fn web_tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_web-tool")).args(arguments).output().expect("the tool runs")
}

#[test]
fn what_it_does_not_know_is_named_and_fails() {
    for arguments in [&[][..], &["bundle", "one.wasm"], &["check", "page.html"], &["serve", "a", "b", "c"]] {
        let output = web_tool(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        let last = arguments.last().copied().unwrap_or("bundle WASM FILE");
        assert!(said.starts_with("error: ") && said.contains(last), "{arguments:?}: {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = web_tool(&["bundle", "/nowhere/page.wasm", "/nowhere/page.html"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("/nowhere/page.wasm"), "{said}");
}
