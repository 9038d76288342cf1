//! Every kernel on an implementation of WebGPU: one line of JSON a case, and a table of many such runs.
//!
//! `cargo xtask conformance` starts it under each implementation. Where wgpu itself runs on the implementation, a case
//! computes at once. Where it does not (Dawn), `export` records the same cases without any device as files, which a
//! small script replays (`js/replay.mjs`), and `judge` looks at what came out: shaders, buffers and dispatches are those
//! of the library, and there is one judge.
//!
//! | file | what |
//! |---|---|
//! | `bench.rs` | a device, and the one seam between computing, recording and judging |
//! | `trace.rs` | what wgpu recorded as a file for other implementations |
//! | `cases/` | what a case is, and those of each kernel |
//! | `tensor.rs` | buffers with poison around them |
//! | `results.rs` | lines of JSON |
//! | `table.rs` | kernels by implementations |

mod bench;
mod cases;
mod results;
mod table;
mod tensor;
mod trace;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use bench::{Bench, NotHere, Recorded};
use cases::{Case, Set};
use results::{Device, Line, Outcome};

/// Kernels by implementations; see `cargo xtask conformance`.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the cases on the first adapter of this process
    Run {
        /// Where the results go, one line of JSON a case
        #[arg(long)]
        out: PathBuf,
        #[arg(long, value_enum, default_value_t)]
        set: Set,
        /// A device with WebGPU's default limits and no features
        #[arg(long)]
        default_limits: bool,
        /// Only cases whose kernel and name contain this
        #[arg(long, default_value = "")]
        only: String,
        /// Only cases of this kernel
        #[arg(long)]
        kernel: Option<String>,
    },
    /// Name the kernels, a line each
    Kernels,
    /// Record the cases as files for another implementation
    Export {
        folder: PathBuf,
        #[arg(long, value_enum, default_value_t)]
        set: Set,
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Judge what another implementation made of the recorded cases
    Judge {
        folder: PathBuf,
        #[arg(long)]
        out: PathBuf,
        #[arg(long, value_enum, default_value_t)]
        set: Set,
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Put results side by side
    Table {
        /// NAME=FILE of `run` or `judge`
        results: Vec<String>,
        /// NAME=REASON of an implementation that is not there
        #[arg(long)]
        missing: Vec<String>,
        /// Write the page here, too
        #[arg(long, requires = "date")]
        page: Option<PathBuf>,
        /// The day of the results
        #[arg(long)]
        date: Option<String>,
    },
}

fn main() -> ExitCode {
    let done = run(Arguments::parse().command);
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run { out, set, default_limits, only, kernel } => {
            let mut cases = cases::of(set, &only)?;
            cases.retain(|case| kernel.as_ref().is_none_or(|kernel| case.kernel == kernel));
            ensure!(!cases.is_empty(), "no case of the kernel `{}`", kernel.unwrap_or_default());
            let bench = Bench::open(default_limits)?;
            let device = Device::of(bench.gpu().info());
            eprintln!("   {device}");
            let lines = cases.iter().map(|case| attempt(case, || Ok(bench.clone()))).collect();
            bench.settle()?;
            finish(&out, device, lines)
        }
        Command::Kernels => {
            let mut names: Vec<_> = cases::of(Set::Full, "")?.iter().map(|case| case.kernel).collect();
            names.sort_unstable();
            names.dedup();
            names.iter().for_each(|name| println!("{name}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Export { folder, set, only } => {
            let cases = cases::of(set, &only)?;
            let mut names = vec![];
            for (n, case) in cases.iter().enumerate() {
                let name = format!("case{n}");
                let folder = folder.join(&name);
                fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
                match (case.run)(&Bench::recording(&folder)?) {
                    Err(error) if error.is::<Recorded>() => {
                        trace::convert(&folder, &case.to_string())?;
                        names.push(name);
                    }
                    // The judge will say the same.
                    Err(error) if error.is::<NotHere>() => fs::remove_dir_all(&folder)?,
                    Err(error) => return Err(error.context(case.to_string())),
                    Ok(_) => anyhow::bail!("{case}: it computes nothing on the device"),
                }
            }
            fs::write(folder.join("cases.json"), serde_json::to_string(&names)?)?;
            println!("{} of {} cases in {}", names.len(), cases.len(), folder.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Judge { folder, out, set, only } => {
            let device =
                fs::read_to_string(folder.join("adapter.json")).context("adapter.json of the replay")?;
            let device = serde_json::from_str(&device)?;
            eprintln!("   {device}");
            let judge = |(n, case): (usize, &Case)| {
                attempt(case, || Bench::replayed(&folder.join(format!("case{n}"))))
            };
            finish(&out, device, cases::of(set, &only)?.iter().enumerate().map(judge).collect())
        }
        Command::Table { results, missing, page, date } => {
            let columns = results.iter().map(|result| {
                let (name, file) =
                    result.split_once('=').with_context(|| format!("no NAME= in `{result}`"))?;
                table::Column::read(name, Path::new(file))
            });
            let columns: Vec<_> = columns.collect::<Result<_>>()?;
            ensure!(!columns.is_empty(), "no results");
            print!("{}", table::text(&columns, &missing));
            if let (Some(page), Some(date)) = (page, date) {
                results::replace(&page, &table::page(&columns, &missing, &date))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a case; whatever goes wrong, a panic too, is its outcome.
fn attempt(case: &Case, bench: impl FnOnce() -> Result<Bench>) -> Line {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| bench().and_then(|bench| (case.run)(&bench))));
    let outcome = match result {
        Ok(Ok(ratio)) => Outcome::Worst(ratio),
        Ok(Err(error)) => match error.downcast_ref::<NotHere>() {
            Some(NotHere(reason)) => Outcome::NotRun(reason.to_string()),
            None => Outcome::Failed(format!("{error:#}")),
        },
        Err(panic) => Outcome::Failed(words_of(panic.as_ref())),
    };
    let line = Line {
        kernel: case.kernel.into(),
        element: case.element.to_string(),
        case: case.name.clone(),
        outcome,
        seconds: start.elapsed().as_secs_f64(),
    };
    eprintln!("   {line}");
    line
}

/// What a panic said.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().cloned();
    words.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or("a panic".into())
}

/// Writes the results; the status says whether all is well.
fn finish(out: &Path, device: Device, lines: Vec<Line>) -> Result<ExitCode> {
    let failed = lines.iter().filter(|line| matches!(line.outcome, Outcome::Failed(_))).count();
    results::write(out, &device, &lines)?;
    println!("{device}: {} cases, {failed} failed", lines.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
