//! A run: every adapter, every case, the file after each of them.

use super::host;
use super::table::{self, Table};
use crate::devices::{Device, PathArgs};
use crate::output::{say, write_whole};
use crate::progress::Countdown;
use anyhow::{Result, anyhow};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::SystemTime;
use wgpu_attention_bench::cases::Spec;
use wgpu_attention_bench::ceilings::{Ceilings, KINDS};
use wgpu_attention_bench::clock::{Interrupted, Stop};
use wgpu_attention_bench::describe;
use wgpu_attention_bench::measure::{Bench, Step, Watch, steps};
use wgpu_attention_bench::record::{Adapter, Case, FORMAT, Record, Rules, Status};
use wgpu_attention_bench::subject::models;
use wgpu_attention_bench::suites::Suite;
use wgpu_attention_bench::text::one_line;

/// What was asked for.
pub(crate) struct Session {
    pub(crate) suite: Suite,
    /// When a measurement ends.
    pub(crate) rules: Rules,
    pub(crate) filter: Option<String>,
    pub(crate) path: PathArgs,
    /// Where the record goes, if anywhere.
    pub(crate) json: Option<PathBuf>,
    pub(crate) quiet: bool,
    pub(crate) stop: Stop,
}

impl Session {
    /// The cases that the filter takes.
    pub(crate) fn specs(&self) -> Vec<Spec> {
        self.suite.filtered(self.filter.as_deref())
    }

    /// Runs the cases on the devices. After an interruption the record says so, and holds what was done.
    pub(crate) fn run(&self, devices: &[Device], specs: &[Spec]) -> Result<Record> {
        let mut record = Record {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            suite: self.suite.to_string(),
            filter: self.filter.clone(),
            complete: false,
            host: host::host(),
            rules: self.rules,
            models: models(),
            adapters: devices
                .iter()
                .map(|it| describe::adapter(it.index, &it.adapter, it.driver()))
                .collect(),
        };
        for adapter in &mut record.adapters {
            adapter.cases = specs.iter().map(Case::new).collect();
        }
        let steps = devices.len() * steps(specs.len());
        let progress = Countdown::new(steps, self.quiet);
        for (at, device) in devices.iter().enumerate() {
            match guarded(|| self.adapter(device, specs, &mut record, at, &progress)) {
                Ok(()) => {}
                Err(error) if error.is::<Panicked>() => {
                    let adapter = &mut record.adapters[at];
                    let open = adapter.cases.iter_mut().filter(|case| case.status == Status::Interrupted);
                    open.for_each(|case| case.because(Status::Failed, error.to_string()));
                    adapter.error = Some(error.to_string());
                    progress.aside(|| say!("{error}"))?;
                    self.write(&record)?;
                }
                Err(error) if error.is::<Interrupted>() => {
                    table::end(&record.adapters[at], &record)?;
                    self.write(&record)?;
                    return Ok(record);
                }
                Err(error) => return Err(error),
            }
        }
        record.complete = true;
        self.write(&record)?;
        Ok(record)
    }

    /// Everything on one adapter. That it fails is no error: its record says so.
    fn adapter(
        &self,
        device: &Device,
        specs: &[Spec],
        record: &mut Record,
        at: usize,
        progress: &Countdown,
    ) -> Result<()> {
        progress.aside(|| say!("\nadapter {device}, {}", device.driver()))?;
        let rules = record.rules;
        let opened = device.open_measured(self.path).and_then(|gpu| {
            let ceilings = pollster::block_on(Ceilings::open(&device.adapter, rules, self.stop.clone()))?;
            Ok((gpu, ceilings))
        });
        let bench = opened.as_ref().map_err(|error| anyhow!("{error:#}")).and_then(|(gpu, ceilings)| {
            Ok((pollster::block_on(Bench::open(gpu, rules, self.stop.clone()))?, ceilings))
        });
        let (bench, ceilings) = match bench {
            Ok(opened) => opened,
            Err(error) => {
                let why = one_line(&format!("{error:#}"));
                progress.aside(|| say!("cannot run: {why}"))?;
                let adapter = &mut record.adapters[at];
                adapter.cases.iter_mut().for_each(|case| case.because(Status::CannotRun, why.clone()));
                adapter.error = Some(why);
                (0..steps(specs.len())).for_each(|_| progress.done());
                return self.write(record);
            }
        };
        progress.aside(|| say!("\nceilings:"))?;
        let terminal = Terminal { session: self, progress, table: Table::of(&record.adapters[at].cases) };
        pollster::block_on(bench.run(ceilings, specs, (record, at), &self.stop, &terminal))?;
        self.write(record)?;
        progress.aside(|| table::end(&record.adapters[at], record))
    }

    fn write(&self, record: &Record) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| write_whole(path, record.to_json()?.as_bytes()))
    }
}

/// Shows a run on the terminal, and keeps the file up to date.
struct Terminal<'s> {
    session: &'s Session,
    progress: &'s Countdown,
    table: Table,
}

impl Watch for Terminal<'_> {
    fn begin(&self, name: &str) {
        self.progress.begin(name);
    }

    fn done(&self, step: Step, record: &Record, at: usize) -> Result<()> {
        self.progress.done();
        let Adapter { ceilings, cases, .. } = &record.adapters[at];
        self.progress.aside(|| match step {
            Step::Ceiling(n) => {
                say!("{}", table::ceiling(&ceilings[n]))?;
                if n + 1 == KINDS.len() { self.table.head() } else { Ok(()) }
            }
            Step::Case(n) => self.table.case(&cases[n]),
            Step::CeilingAgain(_) => Ok(()),
        })?;
        if matches!(step, Step::Case(_)) { self.session.write(record) } else { Ok(()) }
    }
}

/// A driver, or wgpu on its behalf, panicked.
#[derive(Debug)]
struct Panicked(String);

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the adapter's driver panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// Turns a panic into an error: of several adapters one may have a driver that wgpu gives up on.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What is left half done is the adapter's record, which then says so.
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned()));
        Err(Panicked(one_line(&words.unwrap_or_else(|| "without a word".into()))).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_adapters_error() {
        assert_eq!(guarded(|| Ok(7)).unwrap(), 7);
        let limit = 3;
        let error = guarded::<()>(|| panic!("wgpu error:\n  limit {limit}")).unwrap_err();
        assert!(error.is::<Panicked>());
        assert_eq!(error.to_string(), "the adapter's driver panicked: wgpu error: limit 3");
        let other = guarded::<()>(|| Err(Interrupted.into())).unwrap_err();
        assert!(other.is::<Interrupted>());
    }
}
