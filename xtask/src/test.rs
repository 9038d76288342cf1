//! `cargo xtask test`: every check there is, as named steps, and a summary.
//!
//! The quick checks come first, and a failure does not stop the rest: one run shows all that is wrong. The test programs and the
//! longer steps run two at a time ([`jobs`], `beside.rs`). What this machine cannot run is listed as not run, never as passed, and so
//! is what is left to other runs ([`turns`](crate::turns)).

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

use crate::beside::Beside;
use crate::jobs::{self, Job};
use crate::length::Length;
use crate::slowest::Times;
use crate::software::{self, Choice, Launcher};
use crate::steps::{Steps, cargo, root, succeed};
use crate::{deny, programs, rules};

/// What takes longest, in this order: begun last, one of them would run alone at the end.
const LONGEST: [&str; 14] = [
    "burn",
    "kernels",
    "candle",
    "cli",
    "web",
    "layer",
    "MPI ranks",
    "lsh",
    "mutants",
    "newcomer",
    "other implementations",
    "backward",
    "shader statistics",
    "shader gates",
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
        let all = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
        succeed(cargo().args(all))
    });
    let mut times = Times::default();
    let (mut jobs, mut left_out) = (vec![], vec![]);
    steps.run("build and doc tests", || {
        let (built, outcome) =
            programs::build(&launcher, options.length, &options.to_cargo_test, &mut times)?;
        (jobs, left_out) = (built.jobs, built.left_out);
        outcome
    });
    let beside = Beside::new(options.length)?;
    jobs.extend(beside.jobs(options.adapter, options.length)?);
    run_jobs(jobs, &beside, &mut steps, &mut times)?;
    left_out.iter().for_each(|(program, what)| steps.not_run(&format!("tests of {program}"), what));
    beside.left_out(&mut steps);

    println!("\n{}\n{}", times.report(), steps.summary());
    Ok(if steps.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the test programs, which are one step, and the steps beside them.
fn run_jobs(jobs: Vec<Job>, beside: &Beside, steps: &mut Steps, times: &mut Times) -> Result<()> {
    let mut others = vec![];
    steps.run("tests, and the steps beside them", || {
        let heard = Mutex::new(times);
        let hear =
            |name: &str, line: &str| heard.lock().unwrap_or_else(PoisonError::into_inner).hear(name, line);
        let ended = jobs::run_all(in_order(jobs), hear)?;
        let times = heard.into_inner().unwrap_or_else(PoisonError::into_inner);
        ended.iter().for_each(|ended| times.end(&ended.name, ended.time, ended.processor));
        let (steps, programs): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|ended| beside.has(&ended.name));
        others = steps;
        let failed = programs.iter().filter(|ended| !ended.status.success());
        let failed: Vec<_> = failed.map(|ended| format!("{}: {}", ended.name, ended.status)).collect();
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    });
    others.iter().for_each(|ended| beside.take_in(ended, steps));
    Ok(())
}

/// The jobs with the [`LONGEST`] first.
fn in_order(mut jobs: Vec<Job>) -> Vec<Job> {
    let place = |job: &Job| LONGEST.iter().position(|long| *long == job.name).unwrap_or(LONGEST.len());
    jobs.sort_by_key(place);
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn job(name: &str, script: &str) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Job { name: name.into(), command }
    }

    #[test]
    fn those_that_take_longest_come_first() {
        let jobs = ["api", "lsh", "masks", "kernels"].map(|name| job(name, ""));
        let order: Vec<_> = in_order(jobs.into()).into_iter().map(|job| job.name).collect();
        assert_eq!(order, ["kernels", "lsh", "api", "masks"]);
    }

    #[test]
    #[cfg(unix)]
    fn failures_of_programs_are_those_of_one_step() {
        let (mut steps, mut times) = (Steps::default(), Times::default());
        let jobs = vec![job("bad", "exit 3"), job("good", "echo 'test a ... ok <0.500s>'")];
        run_jobs(jobs, &Beside::new(Length::Quick).unwrap(), &mut steps, &mut times).unwrap();
        assert_eq!(steps.failures(), 1);
        assert!(steps.summary().contains("FAILED: bad: exit status: 3"), "{}", steps.summary());
        assert!(times.report().contains("0.5 s  good: a"), "{}", times.report());
        assert!(times.report().contains(" s  bad\n"), "{}", times.report());
    }
}
