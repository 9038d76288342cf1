//! One candidate on the device: verified, then timed.

use super::candidates::Candidates;
use super::{Outcome, Trial, Tuning};
use crate::reference::{self, Got, Kind, Rows, Tensors, VerifyOptions, WeightFormat};
use crate::{Attention, AttentionBuffers, Call, Element, Error, Gpu, Options, Parts, Pattern, Result};
use std::marker::PhantomData;
use std::time::Instant;

/// Seconds of a sample at least: clocks and launches are then small beside it.
const SAMPLE_S: f64 = 0.02;
/// Samples, of which the least counts: what disturbs a sample makes it longer.
const SAMPLES: usize = 5;
/// Calls of a sample at most.
const MOST_CALLS: f64 = 1000.0;
/// Rows that are compared.
const ROWS: usize = 16;
/// How much more than the best rate that was seen a candidate may have.
const RATE_HEADROOM: f64 = 1.5;

/// A call's tensors on the device, and what became of the candidates.
pub(super) struct Trials<'a, Q, KV, O> {
    gpu: &'a Gpu,
    attention: &'a Attention,
    pattern: &'a dyn Pattern,
    parts: &'a Parts,
    tensors: Tensors<Q, KV>,
    /// q, k, v.
    buffers: [wgpu::Buffer; 3],
    terms: Vec<(&'static str, wgpu::Buffer)>,
    watch: &'a mut dyn FnMut(&Trial),
    list: Vec<Trial>,
    best: Option<(Tuning, f64)>,
    /// Floating-point operations per second.
    best_rate: f64,
    output: PhantomData<O>,
}

impl<'a, Q: Element, KV: Element, O: Element> Trials<'a, Q, KV, O> {
    pub(super) fn new(
        gpu: &'a Gpu,
        attention: &'a Attention,
        pattern: &'a dyn Pattern,
        parts: &'a Parts,
        watch: &'a mut dyn FnMut(&Trial),
    ) -> Result<Self> {
        let tensors = reference::random::<Q, KV>(attention, Kind::Normal, 1)?;
        let buffers = [
            gpu.upload("q", &tensors.q, attention.len_q())?,
            gpu.upload("k", &tensors.k, attention.len_k())?,
            gpu.upload("v", &tensors.v, attention.len_v())?,
        ];
        let terms = tensors.terms.iter();
        let terms = terms.map(|(name, values)| Ok((*name, gpu.upload(name, values, values.len())?)));
        let terms = terms.collect::<Result<_>>()?;
        let (list, best, best_rate, output) = (vec![], None, 0.0, PhantomData);
        Ok(Self {
            gpu,
            attention,
            pattern,
            parts,
            tensors,
            buffers,
            terms,
            watch,
            list,
            best,
            best_rate,
            output,
        })
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
        let [q, k, v] = self.buffers.each_ref().map(wgpu::Buffer::as_entire_buffer_binding);
        // A new one for each: what an earlier candidate wrote must not pass for this one's.
        let out = self.gpu.output("out", self.attention.len_out(), O::TYPE)?;
        let buffers = AttentionBuffers::new(q, k, v, out.as_entire_buffer_binding());
        let buffers = self
            .terms
            .iter()
            .fold(buffers, |buffers, (name, tensor)| buffers.tensor(name, tensor.as_entire_buffer_binding()));
        let call = plan.bind(buffers)?;

        let fetched = pollster::block_on(self.gpu.fetch(&[&out], |encoder| call.encode(encoder)))?;
        let got: Vec<O> = fetched.take(0, self.attention.len_out())?;
        let order = |at: reference::Position| self.parts.key_order(at.batch, at.head, at.i);
        let verify = VerifyOptions {
            rows: Rows::Sample { count: ROWS, seed: 1 },
            order: Some(&order),
            tiles: Some(&|at| self.parts.key_tiles(at.batch, at.head, at.i)),
            weights: WeightFormat::of(plan.path().path),
            ..Default::default()
        };
        let got = Got { out: &got, lse: None };
        let report = reference::verify(self.attention, &self.tensors.inputs(), self.pattern, got, verify)?;
        if !report.pass {
            return Ok(Outcome::Wrong(report.to_string()));
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
