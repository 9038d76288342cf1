//! What `cargo xtask web` runs: the page as one file, and its test and that of the benchmark report in a browser.
//!
//! | file | what |
//! |---|---|
//! | `bundle.rs` | `web-tool bundle WASM FILE`: from the compiled crate and `web/page/` to one HTML file |
//! | `check.rs` | `web-tool check FILE FOLDER BROWSER ARGS...`: clicks, waits, reads; pictures into the folder |
//! | `draws.rs`, `runs.rs` | of that the way through the patterns, and through a run of one |
//! | `report.rs` | `web-tool report FILE FOLDER BROWSER ARGS...`: the benchmark report on screens and on paper |
//! | `screen.rs` | what these share: windows, what is waited for, what must always hold |
//! | `devtools.rs` | a browser under control, by the DevTools protocol |

mod bundle;
mod check;
mod devtools;
mod draws;
mod report;
mod runs;
mod screen;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["bundle", wasm, file] => bundle::write(Path::new(wasm), Path::new(file)),
        ["check", file, folder, browser, arguments @ ..] => {
            check::page(Path::new(file), Path::new(folder), browser, arguments)
        }
        ["report", file, folder, browser, arguments @ ..] => {
            report::report(Path::new(file), Path::new(folder), browser, arguments)
        }
        _ => bail!(
            "need `bundle WASM FILE`, or `check` or `report` and `FILE FOLDER BROWSER ARGS...`, got {arguments:?}"
        ),
    }
}
