//! `cargo xtask isa`: the statistics of WGSL files, or of every kernel of the crate.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use wgpu_attention_isa::{Checks, FAMILIES, Radv, Statistics, budget, report, spirv};

const HELP: &str = "\
cargo xtask isa [OPTIONS] [FILE.wgsl ...]

Statistics of the files' first compute entry points; without files, of every kernel of the crate.

  --family F,...  GPU families as RADV names them (navi31,navi21,vega10: RDNA3, RDNA2, GCN)
  --only TEXT     only kernels of the crate whose label contains the text
  --checked       with all run-time checks, as wgpu has them by default
  --unchecked     without any
                  (else as the crate runs its kernels: checked, but workgroup memory is not zeroed)
  --isa           print the instructions too
  --markdown      print tables for a page
  --check         compare the crate's kernels with tools/isa/budgets.txt; status 1 where one falls short
  --bless         write tools/isa/budgets.txt and tools/isa/STATISTICS.md from what the kernels reach now";

/// What to do.
#[derive(Debug, PartialEq)]
struct Options {
    families: Vec<String>,
    only: String,
    checks: Checks,
    isa: bool,
    markdown: bool,
    check: bool,
    bless: bool,
    files: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let done = options(&arguments).and_then(|options| run(&options));
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Reads the command line.
fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        families: FAMILIES.map(String::from).to_vec(),
        only: String::new(),
        checks: Checks::as_run(),
        isa: false,
        markdown: false,
        check: false,
        bless: false,
        files: Vec::new(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--family" => options.families = value()?.split(',').map(String::from).collect(),
            "--only" => options.only = value()?.clone(),
            "--checked" => options.checks = Checks::checked(),
            "--unchecked" => options.checks = Checks::unchecked(),
            "--isa" => options.isa = true,
            "--markdown" => options.markdown = true,
            "--check" => options.check = true,
            "--bless" => options.bless = true,
            unknown if unknown.starts_with('-') => bail!("unknown option `{unknown}`; see --help"),
            file => options.files.push(file.into()),
        }
    }
    let judges = options.check || options.bless;
    let narrowed =
        !options.files.is_empty() || !options.only.is_empty() || options.checks != Checks::as_run();
    ensure!(!(judges && narrowed), "--check and --bless are for all of the crate's kernels as it runs them");
    let all_families = options.families == FAMILIES;
    ensure!(!options.bless || all_families, "--bless is for all families");
    Ok(options)
}

/// Does it.
fn run(options: &Options) -> Result<ExitCode> {
    let shaders = shaders(options)?;
    ensure!(!shaders.is_empty(), "no kernel's label contains `{}`", options.only);
    let mut rows = Vec::new();
    let mut driver = String::new();
    for family in &options.families {
        let radv = Radv::open(family)?;
        driver = radv.driver().into();
        for (label, shader) in &shaders {
            if radv.supports(shader) {
                rows.push(radv.compile(label, shader)?);
            } else {
                eprintln!("{label}: not on {family}, which has no matrix units");
            }
        }
    }

    let page = report::markdown(&rows, options.checks, &driver);
    match (options.markdown, options.check || options.bless) {
        (true, _) => print!("{page}"),
        (false, false) => print!("{}", report::text(&rows)),
        (false, true) => {}
    }
    if options.isa {
        rows.iter().for_each(|row| println!("\n{} on {}\n{}", row.label, row.family, row.isa));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if options.bless {
        fs::write(folder.join("budgets.txt"), budget::write(&rows)?)?;
        fs::write(folder.join("STATISTICS.md"), page)?;
    }
    if options.check { check(&folder.join("budgets.txt"), &rows) } else { Ok(ExitCode::SUCCESS) }
}

/// The shaders to measure, with their labels.
fn shaders(options: &Options) -> Result<Vec<(String, spirv::Shader)>> {
    if options.files.is_empty() {
        let mut all = wgpu_attention::wgsl::variants();
        all.retain(|shader| !shader.for_cpus);
        let wanted = all.iter().filter(|shader| shader.label.contains(&options.only));
        return wanted
            .map(|shader| {
                let translated = spirv::translate(&shader.text, Some(shader.entry), options.checks);
                Ok((shader.label.clone(), translated.with_context(|| shader.label.clone())?))
            })
            .collect();
    }
    let read = |file: &String| {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let translated = spirv::translate(&text, None, options.checks).with_context(|| file.clone())?;
        Ok((file.clone(), translated))
    };
    options.files.iter().map(read).collect()
}

/// Compares with the committed budgets.
fn check(file: &Path, rows: &[Statistics]) -> Result<ExitCode> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read {}: make it with --bless", file.display()))?;
    let shortfalls = budget::shortfalls(&budget::read(&text)?, rows);
    shortfalls.iter().for_each(|line| println!("{line}"));
    println!("{} kernels and families, {} short of their budgets", rows.len(), shortfalls.len());
    Ok(if shortfalls.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        options(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let all = read("--family navi21 --unchecked --isa --markdown a.wgsl b.wgsl").unwrap();
        assert_eq!(all.families, ["navi21"]);
        assert_eq!(all.files, ["a.wgsl", "b.wgsl"]);
        assert!(all.isa && all.markdown && all.checks == Checks::unchecked());
        assert_eq!(read("").unwrap().families, FAMILIES);
    }

    #[test]
    fn budgets_are_for_the_whole_crate() {
        assert!(read("--check").unwrap().check);
        for line in
            ["--check a.wgsl", "--bless --unchecked", "--check --only x", "--bless --family navi21", "--fast"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
