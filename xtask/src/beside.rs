//! The steps of `cargo xtask test` that run beside the test programs, each in a process of its own: what it prints is shown with its
//! name, and how its parts ended comes back in a file.
//!
//! Some build several hundred crates, or compile for themselves whatever the tests have compiled: those a run has by turns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use crate::frameworks::{BURN, CANDLE};
use crate::jobs::{Ended, Job};
use crate::length::Length;
use crate::software::{self, Choice, Launcher};
use crate::steps::{Steps, cargo, succeed};
use crate::turns::{self, REASON};
use crate::{api, build, conformance, gates, isa, mpi, newcomer, python, steps, validate, web};

/// The command by which `cargo xtask test` starts a step.
pub(crate) const COMMAND: &str = "run-step";

/// What runs beside the test programs.
struct Step {
    /// Of its process; the parts have names of their own.
    name: &'static str,
    /// The names of its parts, where they have others.
    parts: &'static [&'static str],
    /// Runs the parts.
    run: fn(&mut Steps, &Launcher, Length),
}

impl Step {
    /// The names of what it runs.
    fn names(&self) -> &[&'static str] {
        if self.parts.is_empty() { std::slice::from_ref(&self.name) } else { self.parts }
    }
}

const fn step(name: &'static str, run: fn(&mut Steps, &Launcher, Length)) -> Step {
    Step { name, parts: &[], run }
}

/// A step of one part.
fn one(steps: &mut Steps, name: &str, part: impl FnOnce() -> Result<()>) {
    steps.run(name, part);
}

/// All of them.
const STEPS: [Step; 13] = [
    step("docs", |steps, _, _| one(steps, "docs", docs)),
    step(api::STEP, |steps, _, _| api::step(steps)),
    step("fewer features", |steps, _, _| one(steps, "fewer features", fewer_features)),
    Step { name: WEB, parts: &web::STEPS, run: |steps, _, _| web::steps(steps) },
    step(STATISTICS, |steps, _, _| shader_statistics(steps)),
    Step { name: "shader gates", parts: &gates::STEPS, run: |steps, _, _| gates::steps(steps) },
    step(validate::STEP, |steps, _, length| validate::step(steps, length)),
    step(conformance::STEP, |steps, _, length| conformance::step(steps, length)),
    step(mpi::STEP, mpi_ranks),
    step(BURN.step, |steps, launcher, length| one(steps, BURN.step, || BURN.check(launcher, length))),
    step(CANDLE.step, |steps, launcher, length| one(steps, CANDLE.step, || CANDLE.check(launcher, length))),
    step(newcomer::STEP, |steps, launcher, _| one(steps, newcomer::STEP, || newcomer::check(launcher))),
    step(python::STEP, |steps, launcher, _| python::step(steps, launcher)),
];

/// The page, in a browser and without, and the report.
const WEB: &str = "web";
/// The kernels on the compilers of GPUs.
const STATISTICS: &str = "shader statistics";

/// What runs have by turns: each has the steps of one line, beside those that are in no line. The lines take about as long as each other.
const TURNS: [&[&str]; 3] = [
    &[BURN.step],
    &[CANDLE.step, mpi::STEP, STATISTICS, python::STEP],
    &[WEB, newcomer::STEP, validate::STEP],
];

/// The steps in a folder, in which each leaves how it ended.
pub(crate) struct Beside {
    folder: PathBuf,
    /// What this run has.
    steps: Vec<&'static Step>,
    /// Why it does not have the others.
    reason: &'static str,
}

/// The steps of a run of this length.
fn drawn(length: Length) -> Vec<&'static Step> {
    let turn = TURNS[turns::drawn(TURNS.len())];
    let by_turns = |step: &Step| TURNS.iter().any(|line| line.contains(&step.name));
    let has = |step: &&Step| match length {
        Length::Quick => false,
        Length::Usual => !by_turns(step) || turn.contains(&step.name),
        Length::Long => true,
    };
    STEPS.iter().filter(has).collect()
}

impl Beside {
    /// A folder for one run, which draws what it has.
    pub(crate) fn new(length: Length) -> Result<Self> {
        // Of one process there is more than one in tests.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = build::target()?.join(format!("steps-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let reason = if length == Length::Quick { "--quick" } else { REASON };
        Ok(Self { folder, steps: drawn(length), reason })
    }

    /// The processes of its steps.
    pub(crate) fn jobs(&self, adapter: Choice, length: Length) -> Result<Vec<Job>> {
        let job = |step: &Step| {
            let mut command = Command::new(build::ourselves()?);
            command.args([COMMAND, step.name]).arg(self.file(step.name));
            command.args(["--adapter", adapter.word()]).args((length == Length::Long).then_some("--long"));
            Ok(Job { name: step.name.into(), command })
        };
        self.steps.iter().copied().map(job).collect()
    }

    /// Whether a job of this name is one of its steps.
    pub(crate) fn has(&self, job: &str) -> bool {
        self.steps.iter().any(|step| step.name == job)
    }

    /// Lists what the run leaves out.
    pub(crate) fn left_out(&self, steps: &mut Steps) {
        for step in STEPS.iter().filter(|step| !self.has(step.name)) {
            step.names().iter().for_each(|name| steps.not_run(name, self.reason));
        }
    }

    /// Takes in how a step ended.
    pub(crate) fn take_in(&self, ended: &Ended, steps: &mut Steps) {
        if let Err(error) = steps.read(&self.file(&ended.name)) {
            steps.failed(&ended.name, format!("{}: {error:#}", ended.status));
        }
    }

    fn file(&self, step: &str) -> PathBuf {
        self.folder.join(step.replace(' ', "-"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `run-step NAME FILE --adapter WHICH [--long]`: runs a step, and writes how its parts ended to the file.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let [name, file, rest @ ..] = arguments else { bail!("{COMMAND}: no step") };
    let step = STEPS.iter().find(|step| step.name == name).with_context(|| format!("no step `{name}`"))?;
    let (adapter, length) = match rest {
        [option, adapter] if option == "--adapter" => (adapter, Length::Usual),
        [option, adapter, long] if option == "--adapter" && long == "--long" => (adapter, Length::Long),
        _ => bail!("{COMMAND}: {rest:?}"),
    };
    // Without an adapter what needs one fails, and says so.
    let launcher = software::launcher(adapter.parse()?);
    let launcher = launcher.unwrap_or_else(|_| Launcher::system("no adapter".into()));
    let mut steps = Steps::default();
    (step.run)(&mut steps, &launcher, length);
    steps.write(Path::new(file))
}

/// All pages, without a warning.
fn docs() -> Result<()> {
    let mut docs = cargo();
    docs.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps", "--workspace", "--all-features"]);
    succeed(&mut docs)
}

/// The library alone. Its tests are not run this way: they need wgpu, which would be built once more for the other features, and what
/// they test is the same code. With `gpu` alone there is wgpu without a backend.
fn fewer_features() -> Result<()> {
    for features in ["", "serde", "gpu"] {
        let library = ["clippy", "--package", "wgpu-attention", "--lib", "--no-default-features"];
        succeed(cargo().args(library).args(["--features", features, "--", "-D", "warnings"]))?;
    }
    // The command line as `cargo attention` builds it, without what other crates of the workspace ask for.
    succeed(cargo().args(["check", "--package", "wgpu-attention-cli"]))
}

/// The kernels' budgets on the compilers of GPUs.
fn shader_statistics(steps: &mut Steps) {
    let name = STATISTICS;
    if !steps::root().join("tools/isa/budgets").is_dir() {
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

/// Attention over the ranks of an MPI program.
fn mpi_ranks(steps: &mut Steps, launcher: &Launcher, length: Length) {
    match mpi::mpi() {
        Ok(found) => drop(steps.run(mpi::STEP, || mpi::check(&found, launcher, length))),
        Err(error) => steps.not_run(mpi::STEP, format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own() {
        for (n, step) in STEPS.iter().enumerate() {
            assert!(STEPS[..n].iter().all(|other| other.name != step.name), "{}", step.name);
        }
        let jobs = Beside::new(Length::Long).unwrap().jobs(Choice::Software, Length::Long);
        let jobs = jobs.unwrap();
        assert_eq!(jobs.len(), STEPS.len());
        let words: Vec<_> =
            jobs[1].command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(words[..2], [COMMAND, "public api"]);
        assert_eq!(words[3..], ["--adapter", "software", "--long"]);
    }

    /// The lines of the summary that say of a part that it is not run, by a run of this length; and the names of the steps that it has.
    fn left_and_had(length: Length) -> (Vec<String>, Vec<&'static str>) {
        let (beside, mut steps) = (Beside::new(length).unwrap(), Steps::default());
        beside.left_out(&mut steps);
        let summary = steps.summary();
        let left = summary.lines().filter(|line| line.contains("  not run: ")).map(String::from).collect();
        (left, beside.steps.iter().map(|step| step.name).collect())
    }

    #[test]
    fn what_a_run_leaves_out_is_listed_and_a_long_run_has_everything() {
        let (left, had) = left_and_had(Length::Long);
        assert!(left.is_empty() && had.len() == STEPS.len(), "{left:?}");
        let parts: usize = STEPS.iter().map(|step| step.names().len()).sum();
        assert_eq!(left_and_had(Length::Quick).0.len(), parts);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..60 {
            let (left, had) = left_and_had(Length::Usual);
            for step in &STEPS {
                let listed = |name: &&str| left.iter().any(|line| line.trim_start().starts_with(*name));
                let named = step.names().iter().filter(|name| listed(name)).count();
                assert_eq!(named, if had.contains(&step.name) { 0 } else { step.names().len() }, "{left:?}");
            }
            let by_turns: Vec<_> = TURNS.iter().filter(|line| had.contains(&line[0])).collect();
            assert!(by_turns.len() == 1 && by_turns[0].iter().all(|step| had.contains(step)), "{had:?}");
            assert!(left.iter().all(|line| line.ends_with(REASON)), "{left:?}");
            seen.extend(had);
        }
        assert_eq!(seen.len(), STEPS.len(), "each has its turn");
    }

    #[test]
    fn a_step_has_one_turn() {
        let all: Vec<_> = TURNS.iter().copied().flatten().collect();
        for (n, name) in all.iter().enumerate() {
            assert!(STEPS.iter().any(|step| step.name == **name) && !all[..n].contains(name), "{name}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_step_that_leaves_nothing_failed() {
        let beside = Beside::new(Length::Long).unwrap();
        let ended = |name: &str| Ended {
            name: name.into(),
            status: Command::new("false").status().unwrap(),
            time: std::time::Duration::ZERO,
            processor: None,
        };
        let mut steps = Steps::default();
        assert!(beside.has("docs") && !beside.has("kernels"));
        beside.take_in(&ended("docs"), &mut steps);
        assert_eq!(steps.failures(), 1);
        let mut left = Steps::default();
        left.run("part", || Ok(()));
        left.write(&beside.file("web")).unwrap();
        beside.take_in(&ended("web"), &mut steps);
        assert_eq!(steps.failures(), 1);
    }

    #[test]
    fn wrong_words_are_named() {
        let run = |words: &[&str]| run(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert!(run(&["docs"]).unwrap_err().to_string().contains("no step"));
        assert!(run(&["nothing", "file"]).unwrap_err().to_string().contains("`nothing`"));
        assert!(run(&["docs", "file", "--fast"]).unwrap_err().to_string().contains("--fast"));
    }
}
