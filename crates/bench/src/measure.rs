//! Everything on one adapter: ceilings, cases, ceilings again. Who watches shows it: a terminal, or a page in a browser.

use crate::cases::Spec;
use crate::ceilings::microkernel::Microkernel;
use crate::ceilings::{self, Ceilings, KINDS};
use crate::clock::{Interrupted, Stop, Stopwatch};
use crate::predict;
use crate::rates::rates;
use crate::record::{Adapter, Case, Ceiling, Record, Rules, Status};
use crate::subject::{Subject, Verified};
use crate::text::one_line;
use anyhow::Result;
use web_time::Instant;
use wgpu_attention::{Error, Gpu};

/// Measures cases on one device.
pub struct Bench<'g> {
    pub(super) gpu: &'g Gpu,
    pub(super) stopwatch: Stopwatch<'g>,
    /// For cold caches, where they are measured.
    pub(super) overwrite: Option<Microkernel>,
}

/// A step of a run, by its place in the adapter's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A ceiling before the cases, by its place in [`KINDS`].
    Ceiling(usize),
    /// A case, by its place in the record.
    Case(usize),
    /// A ceiling after the cases.
    CeilingAgain(usize),
}

/// What is told of a run as it goes on.
pub trait Watch {
    /// A step begins.
    fn begin(&self, name: &str);
    /// It is done, and in the record.
    fn done(&self, step: Step, record: &Record, at: usize) -> Result<()>;
}

/// Steps that so many cases take on one adapter.
pub fn steps(cases: usize) -> usize {
    cases + 2 * KINDS.len()
}

/// Characters of a pattern in the record.
const PATTERN_CHARS: usize = 200;

impl<'g> Bench<'g> {
    /// What every case on this device needs.
    ///
    /// # Errors
    /// The device has no memory for it.
    pub async fn open(gpu: &'g Gpu, rules: Rules, stop: Stop) -> Result<Self> {
        let overwrite = match rules.cold_bytes {
            0 => None,
            bytes => Some(Microkernel::overwrite(gpu, bytes).await?),
        };
        Ok(Self { gpu, stopwatch: Stopwatch::new(gpu, rules, stop).await, overwrite })
    }

    /// Measures the ceilings, the cases, and the ceilings again, into the record's adapter `at`.
    pub async fn run(
        &self,
        ceilings: &Ceilings,
        specs: &[Spec],
        (record, at): (&mut Record, usize),
        stop: &Stop,
        watch: &dyn Watch,
    ) -> Result<()> {
        let start = Instant::now();
        for (n, kind) in KINDS.into_iter().enumerate() {
            watch.begin(&format!("ceiling {kind:?}"));
            let ceiling = Ceiling::new(kind, ceilings.measure(kind).await?);
            record.adapters[at].ceilings.push(ceiling);
            watch.done(Step::Ceiling(n), record, at)?;
        }
        record.adapters[at].no_timestamps = self.stopwatch.no_timestamps().map(Into::into);
        for (n, spec) in specs.iter().enumerate() {
            watch.begin(&spec.name());
            stop.check()?;
            let (rules, spent_s) = (record.rules, start.elapsed().as_secs_f64());
            let Adapter { cases, ceilings, .. } = &mut record.adapters[at];
            let ended = match predict::too_long(&rules, spent_s, &cases[..n], &cases[n]) {
                Some(why) => {
                    cases[n].because(Status::NotRun, why);
                    Ok(())
                }
                None => cases[n].measure(self, spec).await,
            };
            cases[n].rate(ceilings);
            watch.done(Step::Case(n), record, at)?;
            ended?;
        }
        for (n, kind) in KINDS.into_iter().enumerate() {
            watch.begin(&format!("ceiling {kind:?} again"));
            record.adapters[at].ceilings[n].finish(ceilings.measure(kind).await?);
            watch.done(Step::CeilingAgain(n), record, at)?;
        }
        let drift = record.rules.drift;
        let Adapter { cases, ceilings, drifted, .. } = &mut record.adapters[at];
        *drifted = ceilings::drifted(ceilings, drift);
        // With the better of both measurements of each ceiling.
        cases.iter_mut().for_each(|case| case.rate(ceilings));
        Ok(())
    }
}

impl Case {
    /// One that was not begun.
    pub fn new(spec: &Spec) -> Self {
        let cut = |text: &str| match text.char_indices().nth(PATTERN_CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.into(),
        };
        Self {
            name: spec.name(),
            known_as: spec.known_as.map(Into::into),
            kernel: spec.kernel(),
            pattern: spec.pattern_name(),
            pattern_text: spec.pattern().map(|pattern| cut(&pattern.text)),
            score: spec.score_name(),
            score_text: spec.score_text(),
            path: None,
            shaders: vec![],
            dtype: spec.element().to_string(),
            shape: spec.shape(),
            direction: spec.direction(),
            status: Status::Interrupted,
            why: None,
            verification: None,
            cost: None,
            hot: None,
            cold: None,
            rates: None,
        }
    }

    /// Ends with a reason.
    pub fn because(&mut self, status: Status, why: String) {
        (self.status, self.why) = (status, Some(why));
    }

    /// Prepares, verifies, times. The error is the interruption alone: what goes wrong is the case's own.
    ///
    /// # Errors
    /// [`Interrupted`] once the run is to end.
    pub async fn measure(&mut self, bench: &Bench<'_>, spec: &Spec) -> Result<(), Interrupted> {
        let timed = self.try_measure(bench, spec).await;
        self.ended(timed)
    }

    /// Notes what went wrong. The error is the interruption alone.
    pub fn ended(&mut self, result: Result<()>) -> Result<(), Interrupted> {
        match result {
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

    /// The case ready to be timed; none where it is out of its bound.
    pub async fn try_verify<'g>(&mut self, gpu: &'g Gpu, spec: &Spec) -> Result<Option<Verified<'g>>> {
        let subject = Subject::prepare(gpu, spec).await?;
        (self.path, self.shaders) = (Some(subject.path.clone()), subject.shaders.clone());
        self.cost = Some(subject.cost.clone());
        let (verified, verification) = subject.verify().await?;
        let pass = verification.pass;
        let at = verification.worst_at.clone().unwrap_or_default();
        let (error, bound) = (verification.worst_error, verification.worst_bound);
        self.verification = Some(verification);
        if pass {
            return Ok(Some(verified));
        }
        let size = |it: Option<f64>| it.map_or("not finite".into(), |it| format!("{it:.3e}"));
        let why = format!("out of its bound: {at}: error {}, bound {}", size(error), size(bound));
        self.because(Status::Failed, why);
        Ok(None)
    }

    async fn try_measure(&mut self, bench: &Bench<'_>, spec: &Spec) -> Result<()> {
        let Some(verified) = self.try_verify(bench.gpu, spec).await? else { return Ok(()) };
        let call = |pass: &mut wgpu::ComputePass<'_>| verified.dispatch(pass);
        let hot = self.hot.insert(bench.stopwatch.hot(&call, verified.took_s).await?);
        let converged = hot.converged;
        if let Some(overwrite) = &bench.overwrite {
            self.cold = Some(bench.stopwatch.cold(&call, overwrite).await?);
        }
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
