//! One candidate on the device: verified, then timed.

use super::candidates::Candidates;
use super::{Outcome, Trial, Tuning};
use crate::reference::Kind;
use crate::self_test::Subject;
use crate::{Attention, Call, Element, Error, Gpu, Options, Parts, Pattern, Result};
use std::time::Instant;

/// Seconds of a sample at least: clocks and launches are then small beside it.
const SAMPLE_S: f64 = 0.02;
/// Samples, of which the least counts: what disturbs a sample makes it longer.
const SAMPLES: usize = 5;
/// Calls of a sample at most.
const MOST_CALLS: f64 = 1000.0;
/// How much more than the best rate that was seen a candidate may have.
const RATE_HEADROOM: f64 = 1.5;

/// What became of the candidates.
pub(super) struct Trials<'a, Q, KV, O> {
    gpu: &'a Gpu,
    attention: &'a Attention,
    parts: &'a Parts,
    subject: Subject<'a, Q, KV, O>,
    watch: &'a mut dyn FnMut(&Trial),
    list: Vec<Trial>,
    best: Option<(Tuning, f64)>,
    /// Floating-point operations per second.
    best_rate: f64,
}

impl<'a, Q: Element, KV: Element, O: Element> Trials<'a, Q, KV, O> {
    pub(super) fn new(
        gpu: &'a Gpu,
        attention: &'a Attention,
        pattern: &'a dyn Pattern,
        parts: &'a Parts,
        watch: &'a mut dyn FnMut(&Trial),
    ) -> Result<Self> {
        let subject = Subject::new(gpu, attention, pattern, parts, Kind::Normal)?;
        Ok(Self { gpu, attention, parts, subject, watch, list: vec![], best: None, best_rate: 0.0 })
    }

    /// The plan's own choice, which must work.
    pub(super) fn run_own(&mut self, own: Tuning) -> Result<()> {
        // As the plan chose it: every part may have a tile of its own.
        let outcome = self.examine(*self.gpu.kernels().options())?;
        if let Outcome::Wrong(found) = outcome {
            return Err(Error::Device { what: "tune".into(), message: found });
        }
        self.add(own, outcome);
        Ok(())
    }

    /// One candidate, unless it cannot be the fastest.
    pub(super) fn run(&mut self, candidates: &Candidates<'_>, tuning: Tuning) -> Result<()> {
        let flops = candidates.flops(tuning);
        if let Some((best, time_s)) = self.best {
            self.best_rate = self.best_rate.max(candidates.flops(best) / time_s);
            let least_s = flops / (RATE_HEADROOM * self.best_rate);
            if least_s > time_s {
                self.add(tuning, Outcome::Skipped(least_s));
                return Ok(());
            }
        }
        let outcome = self.examine(tuning.options(*self.gpu.kernels().options()))?;
        self.add(tuning, outcome);
        Ok(())
    }

    fn add(&mut self, tuning: Tuning, outcome: Outcome) {
        if let Outcome::Timed(time_s) = outcome {
            if self.best.is_none_or(|(_, best_s)| time_s < best_s) {
                self.best = Some((tuning, time_s));
            }
        }
        let trial = Trial { tuning, outcome };
        (self.watch)(&trial);
        self.list.push(trial);
    }

    /// An error only where the device fails.
    fn examine(&self, options: Options) -> Result<Outcome> {
        let kernels = self.gpu.kernels().with_options(options);
        let plan = kernels.and_then(|kernels| kernels.attention_parts(self.attention, self.parts));
        let plan = match plan {
            Ok(plan) => plan,
            Err(error @ Error::DeviceLost(_)) => return Err(error),
            Err(error) => return Ok(Outcome::Refused(error.to_string())),
        };
        let (call, wrong) = pollster::block_on(self.subject.judge(&plan))?;
        if let Some(found) = wrong {
            return Ok(Outcome::Wrong(found));
        }

        let once = self.seconds(&call, 1)?.max(1e-6);
        let calls = (SAMPLE_S / once).clamp(1.0, MOST_CALLS) as usize;
        let mut least = f64::INFINITY;
        for _ in 0..SAMPLES {
            least = least.min(self.seconds(&call, calls)? / calls as f64);
        }
        Ok(Outcome::Timed(least))
    }

    /// From submit to done.
    fn seconds(&self, call: &Call, calls: usize) -> Result<f64> {
        let start = Instant::now();
        self.gpu.submit(|encoder| {
            (0..calls).for_each(|_| call.encode(encoder));
            Ok(())
        })?;
        let done = self.gpu.device().poll(wgpu::PollType::wait_indefinitely());
        done.map_err(|error| Error::Device { what: "tune".into(), message: error.to_string() })?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The fastest so far; the plan's own choice ran first and is there.
    pub(super) fn best(&self) -> Tuning {
        self.best.map_or(self.list[0].tuning, |(tuning, _)| tuning)
    }

    pub(super) fn into_list(self) -> Vec<Trial> {
        self.list
    }
}
