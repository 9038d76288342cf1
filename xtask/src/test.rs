//! `cargo xtask test`: every check there is, as named steps, and a summary.
//!
//! The quick checks come first, and a failure does not stop the rest: one run shows all that is wrong. What this
//! machine cannot run is listed as not run, never as passed.

use std::process::ExitCode;

use anyhow::Result;

use crate::frameworks::{BURN, CANDLE};
use crate::length::Length;
use crate::software::{self, Choice, Launcher};
use crate::steps::{Steps, cargo, root, succeed};
use crate::{api, conformance, deny, gates, isa, mpi, newcomer, programs, python, rules, web};

/// The steps that `--quick` leaves out.
const THOROUGH: [&str; 14] = [
    "docs",
    api::STEP,
    "fewer features",
    web::STEPS[0],
    web::STEPS[1],
    web::STEPS[2],
    "shader statistics",
    "shader gates",
    conformance::STEP,
    mpi::STEP,
    BURN.step,
    CANDLE.step,
    newcomer::STEP,
    python::STEP,
];

/// What to run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    /// The adapter that tests run on.
    pub(crate) adapter: Choice,
    /// How much of it.
    pub(crate) length: Length,
    /// More arguments of `cargo test`.
    pub(crate) to_cargo_test: Vec<String>,
}

/// Runs the steps.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut steps = Steps::default();
    // First, because a first fetch takes seconds and everything else minutes: a machine that cannot run the tests
    // says so at once.
    let launcher = steps.run("adapter", || {
        let launcher = software::launcher(options.adapter)?;
        eprintln!("   {}", launcher.description());
        Ok(launcher)
    });
    // Without an adapter the tests are run all the same: those of the kernels fail, and cargo says which.
    let launcher = launcher.unwrap_or_else(|| Launcher::system("no adapter".into()));
    steps.run("format", || succeed(cargo().args(["fmt", "--all", "--check"])));
    steps.run("rules of dependence", || rules::check(&root()));
    deny::steps(&mut steps);
    steps.run("clippy", || {
        succeed(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]))
    });
    if options.length == Length::Quick {
        THOROUGH.iter().for_each(|name| steps.not_run(name, "--quick"));
    } else {
        thorough(&mut steps, &launcher, options.length);
    }
    let mut slowest = String::new();
    steps.run("tests", || {
        let (times, outcome) = programs::test(&launcher, options.length, &options.to_cargo_test)?;
        slowest = times.report();
        outcome
    });

    println!("\n{slowest}\n{}", steps.summary());
    Ok(if steps.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The steps of [`THOROUGH`].
fn thorough(steps: &mut Steps, launcher: &Launcher, length: Length) {
    steps.run("docs", || {
        let mut docs = cargo();
        docs.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps", "--workspace", "--all-features"]);
        succeed(&mut docs)
    });
    api::step(steps);
    steps.run("fewer features", || {
        // The library alone. Its tests are not run this way: they need wgpu, which would be built once more for
        // the other features, and what they test is the same code. With `gpu` alone there is wgpu without a backend.
        for features in ["", "serde", "gpu"] {
            let library = ["clippy", "--package", "wgpu-attention", "--lib", "--no-default-features"];
            succeed(cargo().args(library).args(["--features", features, "--", "-D", "warnings"]))?;
        }
        // The command line as `cargo attention` builds it, without what other crates of the workspace ask for.
        succeed(cargo().args(["check", "--package", "wgpu-attention-cli"]))
    });
    web::steps(steps);
    shader_statistics(steps);
    shader_gates(steps);
    conformance::step(steps);
    mpi_ranks(steps, launcher);
    for framework in [BURN, CANDLE] {
        steps.run(framework.step, || framework.check(launcher, length));
    }
    steps.run(newcomer::STEP, || newcomer::check(launcher));
    python::step(steps, launcher);
}

/// The kernels' budgets on the compilers of GPUs.
fn shader_statistics(steps: &mut Steps) {
    let name = "shader statistics";
    if !root().join("tools/isa/budgets").is_dir() {
        return steps.not_run(name, "there is no tools/isa/budgets (cargo xtask isa --bless)");
    }
    // A machine with a driver of its own need not be one on which these compilers can be had.
    match isa::compilers() {
        Ok(compilers) => {
            for missing in &compilers.missing {
                steps.not_run("shader statistics of a GPU", missing.clone());
            }
            steps.run(name, || isa::check(&compilers));
        }
        Err(error) => steps.not_run(name, format!("{error:#}")),
    }
}

/// What other compilers say about the shaders. What naga says is a part of the tests.
fn shader_gates(steps: &mut Steps) {
    match gates::packages() {
        Ok(packages) => drop(steps.run("shader gates", || gates::check(&packages))),
        Err(error) => steps.not_run("shader gates", format!("{error:#}")),
    }
}

/// Attention over the ranks of an MPI program.
fn mpi_ranks(steps: &mut Steps, launcher: &Launcher) {
    match mpi::mpi() {
        Ok(found) => drop(steps.run(mpi::STEP, || mpi::check(&found, launcher))),
        Err(error) => steps.not_run(mpi::STEP, format!("{error:#}")),
    }
}
