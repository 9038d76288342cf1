//! A run: every adapter, every case, the file after each of them.

use super::cases::Spec;
use super::ceilings::microkernel::Microkernel;
use super::ceilings::{self, Ceilings, KINDS};
use super::clock::{Interrupted, Stop, Stopwatch};
use super::rates::rates;
use super::record::{Adapter, Case, Ceiling, Direction, FORMAT, Record, Status};
use super::subject::{Subject, models};
use super::suites::Suite;
use super::table::{self, Table};
use super::{cases::Work, describe};
use crate::devices::{Device, PathArgs};
use crate::output::{one_line, say, write_whole};
use crate::progress::Countdown;
use anyhow::Result;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::SystemTime;
use wgpu_attention::{Error, Gpu};

/// What was asked for.
pub(crate) struct Session {
    pub(crate) suite: Suite,
    pub(crate) filter: Option<String>,
    pub(crate) path: PathArgs,
    /// Where the record goes, if anywhere.
    pub(crate) json: Option<PathBuf>,
    pub(crate) quiet: bool,
    pub(crate) stop: Stop,
}

/// What measures cases on one device.
pub(super) struct Bench<'g> {
    pub(super) gpu: &'g Gpu,
    pub(super) stopwatch: Stopwatch<'g>,
    /// For cold caches.
    pub(super) overwrite: Microkernel,
}

/// Characters of a pattern in the record.
const PATTERN_CHARS: usize = 200;

impl Session {
    /// The cases that pass the filter.
    pub(crate) fn specs(&self) -> Vec<Spec> {
        let mut specs = self.suite.cases();
        specs.retain(|spec| self.filter.as_ref().is_none_or(|filter| spec.name().contains(filter)));
        specs
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
            host: describe::host(),
            rules: self.suite.rules(),
            models: models(),
            adapters: devices.iter().map(describe::adapter).collect(),
        };
        for adapter in &mut record.adapters {
            adapter.cases = specs.iter().map(Case::new).collect();
        }
        let steps = devices.len() * (specs.len() + 2 * KINDS.len());
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
        let opened = device.open(self.path).and_then(|gpu| {
            let ceilings = Ceilings::open(device, record.rules, self.stop.clone())?;
            let overwrite = Microkernel::overwrite(&gpu, record.rules.cold_bytes)?;
            Ok((gpu, ceilings, overwrite))
        });
        let (gpu, ceilings, overwrite) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let why = one_line(&format!("{error:#}"));
                progress.aside(|| say!("cannot run: {why}"))?;
                let adapter = &mut record.adapters[at];
                adapter.cases.iter_mut().for_each(|case| case.because(Status::CannotRun, why.clone()));
                adapter.error = Some(why);
                (0..specs.len() + 2 * KINDS.len()).for_each(|_| progress.done());
                return self.write(record);
            }
        };
        progress.aside(|| say!("\nceilings:"))?;
        for kind in KINDS {
            progress.begin(&format!("ceiling {kind:?}"));
            let ceiling = Ceiling::new(kind, ceilings.measure(kind)?);
            progress.done();
            progress.aside(|| say!("{}", table::ceiling(&ceiling)))?;
            record.adapters[at].ceilings.push(ceiling);
        }
        let stopwatch = Stopwatch::new(&gpu, record.rules, self.stop.clone());
        let bench = Bench { gpu: &gpu, stopwatch, overwrite };
        self.cases(&bench, specs, record, at, progress)?;
        for (n, kind) in KINDS.into_iter().enumerate() {
            progress.begin(&format!("ceiling {kind:?} again"));
            record.adapters[at].ceilings[n].finish(ceilings.measure(kind)?);
            progress.done();
        }
        let drift = record.rules.drift;
        let adapter = &mut record.adapters[at];
        adapter.drifted = ceilings::drifted(&adapter.ceilings, drift);
        // With the better of both measurements of each ceiling.
        let Adapter { cases, ceilings, .. } = adapter;
        cases.iter_mut().for_each(|case| case.rate(ceilings));
        self.write(record)?;
        progress.aside(|| table::end(&record.adapters[at], record))
    }

    fn cases(
        &self,
        bench: &Bench<'_>,
        specs: &[Spec],
        record: &mut Record,
        at: usize,
        progress: &Countdown,
    ) -> Result<()> {
        record.adapters[at].no_timestamps = bench.stopwatch.no_timestamps().map(Into::into);
        let table = Table::of(&record.adapters[at].cases);
        progress.aside(|| table.head())?;
        for (n, spec) in specs.iter().enumerate() {
            progress.begin(&spec.name());
            let Adapter { cases, ceilings, .. } = &mut record.adapters[at];
            let case = &mut cases[n];
            self.stop.check()?;
            let ended = case.measure(bench, spec);
            case.rate(ceilings);
            progress.done();
            progress.aside(|| table.case(case))?;
            self.write(record)?;
            ended?;
        }
        Ok(())
    }

    fn write(&self, record: &Record) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| write_whole(path, record.to_json()?.as_bytes()))
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

impl Case {
    /// One that was not begun.
    pub(super) fn new(spec: &Spec) -> Self {
        let pattern = match &spec.work {
            Work::Attention { pattern, .. } => Some(pattern),
            _ => None,
        };
        let cut = |text: &str| match text.char_indices().nth(PATTERN_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.into(),
        };
        Self {
            name: spec.name(),
            known_as: spec.known_as.map(Into::into),
            kernel: spec.kernel(),
            pattern: pattern.map(|pattern| pattern.name.into()),
            pattern_text: pattern.map(|pattern| cut(&pattern.text)),
            path: None,
            dtype: spec.element().to_string(),
            shape: spec.shape(),
            direction: Direction::Forward,
            status: Status::Interrupted,
            why: None,
            verification: None,
            cost: None,
            hot: None,
            cold: None,
            rates: None,
        }
    }

    fn because(&mut self, status: Status, why: String) {
        (self.status, self.why) = (status, Some(why));
    }

    /// Prepares, verifies, times. The error is the interruption alone: what goes wrong is the case's own.
    pub(super) fn measure(&mut self, bench: &Bench<'_>, spec: &Spec) -> Result<(), Interrupted> {
        match self.try_measure(bench, spec) {
            Ok(()) => Ok(()),
            Err(error) if error.is::<Interrupted>() => Err(Interrupted),
            Err(error) => {
                // What the plan or the upload refuses is a limit of the adapter; what breaks later is a failure.
                let refused =
                    self.path.is_none() || matches!(error.downcast_ref(), Some(Error::Limit { .. }));
                let status = if refused { Status::CannotRun } else { Status::Failed };
                self.because(status, one_line(&format!("{error:#}")));
                Ok(())
            }
        }
    }

    fn try_measure(&mut self, bench: &Bench<'_>, spec: &Spec) -> Result<()> {
        let subject = Subject::prepare(bench.gpu, spec)?;
        self.path = Some(subject.path.clone());
        self.cost = Some(subject.cost.clone());
        let (verified, verification) = subject.verify()?;
        let pass = verification.pass;
        let at = verification.worst_at.clone().unwrap_or_default();
        let (error, bound) = (verification.worst_error, verification.worst_bound);
        self.verification = Some(verification);
        if !pass {
            let size = |it: Option<f64>| it.map_or("not finite".into(), |it| format!("{it:.3e}"));
            let why = format!("out of its bound: {at}: error {}, bound {}", size(error), size(bound));
            self.because(Status::Failed, why);
            return Ok(());
        }
        let call = |pass: &mut wgpu::ComputePass<'_>| verified.dispatch(pass);
        let hot = self.hot.insert(bench.stopwatch.hot(&call)?);
        let converged = hot.converged;
        self.cold = Some(bench.stopwatch.cold(&call, &bench.overwrite)?);
        self.status = if converged { Status::Measured } else { Status::Unconverged };
        Ok(())
    }

    /// What its time means against the ceilings.
    fn rate(&mut self, ceilings: &[Ceiling]) {
        if let (Some(hot), Some(cost), Some(path)) = (&self.hot, &self.cost, &self.path) {
            self.rates = Some(rates(cost, path, hot.clock().summary.median_s, ceilings));
        }
    }
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
