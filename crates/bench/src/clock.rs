//! Time of a call by two clocks.
//!
//! Hot: a sample is two submissions of one pass each, with n and with 2 n calls. The wall clock gives the slope (longer - shorter) / n,
//! in which what a submission costs cancels; timestamps at both ends of the passes give the time of 3 n calls. Of long calls there
//! are none in the shorter submission and one in the longer. Cold: a sample
//! is k times (overwrite a large buffer, one call), and k times overwriting alone; timestamps stand around the calls only.

use crate::call::{checked, submit};
use crate::ceilings::microkernel::Microkernel;
use crate::record::{Rules, Timing};
use crate::stats;
use crate::timestamps::{MOST_PASSES, Timestamps};
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use web_time::Instant;
use wgpu::ComputePass;
use wgpu_attention::Gpu;

/// The shorter submission of a sample takes about this long: a thousand times what a clock is off by.
const SUBMISSION_S: f64 = 0.016;
/// Calls in the shorter submission at most.
const MOST_CALLS: usize = 2048;
/// Measurements with hot caches of which none gave a time above 0.
const ATTEMPTS: usize = 3;
/// Share of the hot measurement's time that the cold one gets.
pub(crate) const COLD: f64 = 1.0 / 3.0;
/// Warm-up ends when so many submissions in a row were not faster than the best before by [`FASTER`].
const WARM: usize = 3;
/// See [`WARM`].
const FASTER: f64 = 0.01;

/// Set once the user wants the run to end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

/// The run was interrupted.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Stop {
    /// From now on every check fails; whether it was set before.
    pub fn set(&self) -> bool {
        self.0.swap(true, Ordering::Relaxed)
    }

    /// # Errors
    /// [`Interrupted`] once it is set.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}

/// What is timed: records one call.
pub(crate) type Call<'a> = &'a dyn Fn(&mut ComputePass<'_>);

/// Measures calls on one device.
pub(crate) struct Stopwatch<'g> {
    gpu: &'g Gpu,
    rules: Rules,
    stop: Stop,
    timestamps: Result<Timestamps, String>,
}

/// A part of a submission: a pass of its own.
#[derive(Clone, Copy)]
enum Piece<'a> {
    /// Under timestamps, unless there are none.
    Calls(usize),
    Overwrite(&'a Microkernel),
}

/// What a submission took.
struct Took {
    wall_s: f64,
    /// Of all timed passes together, or why they cannot be believed.
    passes_s: Option<Result<f64, String>>,
}

/// The samples so far.
#[derive(Default)]
struct Samples {
    wall: Vec<f64>,
    timestamps: Vec<f64>,
    unsound: Option<String>,
}

impl<'g> Stopwatch<'g> {
    /// On a device; without timestamps where it has none.
    pub(crate) async fn new(gpu: &'g Gpu, rules: Rules, stop: Stop) -> Self {
        Self { gpu, rules, stop, timestamps: Timestamps::new(gpu).await }
    }

    /// Why there are no timestamps, where there are none.
    pub(crate) fn no_timestamps(&self) -> Option<&str> {
        self.timestamps.as_ref().err().map(String::as_str)
    }

    /// The same buffers call after call. A call before these took `before_s`: one that took as long as the measurement may is warm-up enough.
    pub(crate) async fn hot(&self, call: Call<'_>, before_s: f64) -> Result<Timing> {
        let start = Instant::now();
        let (calls, warm_up_calls) = match before_s > self.rules.max_s {
            true => (1, 0),
            false => self.warm_up(call).await?,
        };
        let warm_up_s = start.elapsed().as_secs_f64();
        let fewer = if calls == 1 { 0 } else { calls };
        for _ in 0..ATTEMPTS {
            let sample = async |samples: &mut Samples| {
                let shorter = self.submit(call, &[Piece::Calls(fewer)]).await?;
                let longer = self.submit(call, &[Piece::Calls(fewer + calls)]).await?;
                samples.wall.push((longer.wall_s - shorter.wall_s) / calls as f64);
                samples.timestamps([shorter, longer], 2 * fewer + calls);
                Ok(())
            };
            let timing = self.measure(calls, self.rules.min_s, self.rules.max_s, sample).await?;
            // A slope of few samples may be none where other work is in their way.
            let both = [Some(&timing.wall), timing.timestamps.as_ref()].into_iter().flatten();
            if both.into_iter().all(|clock| clock.summary.median_s > 0.0) {
                return Ok(Timing { warm_up_s, warm_up_calls, ..timing });
            }
        }
        bail!("no time above 0 s could be measured: other work on the machine is in its way")
    }

    /// `overwrite` runs before each call. Comes after [`Self::hot`], so that there is nothing to warm up.
    pub(crate) async fn cold(&self, call: Call<'_>, overwrite: &Microkernel) -> Result<Timing> {
        let overwrite = Piece::Overwrite(overwrite);
        let once = self.submit(call, &[overwrite, Piece::Calls(1)]).await?.wall_s;
        let calls = ((SUBMISSION_S / once) as usize).clamp(1, MOST_PASSES as usize);
        let (with, without) = ([overwrite, Piece::Calls(1)].repeat(calls), vec![overwrite; calls]);
        let sample = async |samples: &mut Samples| {
            let without = self.submit(call, &without).await?;
            let with = self.submit(call, &with).await?;
            samples.wall.push((with.wall_s - without.wall_s) / calls as f64);
            samples.timestamps([with], calls);
            Ok(())
        };
        let (min_s, max_s) = (COLD * self.rules.min_s, COLD * self.rules.max_s);
        self.measure(calls, min_s, max_s, sample).await
    }

    /// Calls until that stops making them faster; how many calls a submission should have, and how many there were.
    async fn warm_up(&self, call: Call<'_>) -> Result<(usize, usize)> {
        let start = Instant::now();
        let (mut calls, mut all, mut best, mut no_faster) = (1, 0, f64::INFINITY, 0);
        loop {
            self.stop.check()?;
            let took = self.submit(call, &[Piece::Calls(calls)]).await?.wall_s;
            all += calls;
            let each = took / calls as f64;
            no_faster = if each < (1.0 - FASTER) * best { 0 } else { no_faster + 1 };
            best = best.min(each);
            if took < SUBMISSION_S / 2.0 && calls < MOST_CALLS {
                let more = (SUBMISSION_S / took).clamp(2.0, 16.0);
                calls = ((calls as f64 * more) as usize).min(MOST_CALLS);
                no_faster = 0;
            } else if no_faster >= WARM || start.elapsed().as_secs_f64() > self.rules.max_s / 3.0 {
                return Ok((calls, all));
            }
        }
    }

    /// Samples until they agree, or the time is up.
    async fn measure(
        &self,
        calls: usize,
        min_s: f64,
        max_s: f64,
        mut sample: impl AsyncFnMut(&mut Samples) -> Result<()>,
    ) -> Result<Timing> {
        let (rules, start) = (&self.rules, Instant::now());
        let mut samples = Samples::default();
        loop {
            self.stop.check()?;
            sample(&mut samples).await?;
            let spent_s = start.elapsed().as_secs_f64();
            let enough = samples.wall.len() >= rules.min_samples && spent_s >= min_s;
            let converged = enough && samples.deviation() <= rules.deviation;
            if converged || spent_s >= max_s {
                return samples.timing(calls, converged, spent_s, rules);
            }
        }
    }

    async fn submit(&self, call: Call<'_>, pieces: &[Piece<'_>]) -> Result<Took> {
        let device = self.gpu.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut timed = 0;
        for piece in pieces {
            let writes = self.timestamps.as_ref().ok().filter(|_| matches!(piece, Piece::Calls(1..)));
            let timestamp_writes = writes.map(|timestamps| timestamps.around(timed));
            timed += u32::from(timestamp_writes.is_some());
            let descriptor = wgpu::ComputePassDescriptor { label: Some("bench"), timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            match piece {
                Piece::Calls(calls) => (0..*calls).for_each(|_| call(&mut pass)),
                Piece::Overwrite(overwrite) => overwrite.dispatch(&mut pass),
            }
        }
        let timestamps = self.timestamps.as_ref().ok().filter(|_| timed > 0);
        if let Some(timestamps) = timestamps {
            timestamps.resolve(&mut encoder, timed);
        }
        // What was wrong in the passes is said here.
        let commands = checked(device, "bench", || encoder.finish()).await?;
        let wall_s = submit(self.gpu, "bench", commands).await?.as_secs_f64();
        let passes_s = match timestamps {
            Some(timestamps) => Some(timestamps.passes_s(self.gpu, timed, wall_s).await?),
            None => None,
        };
        Ok(Took { wall_s, passes_s })
    }
}

impl Samples {
    /// Adds what the passes of a sample took, of so many calls altogether.
    fn timestamps<const N: usize>(&mut self, submissions: [Took; N], calls: usize) {
        let passes: Vec<_> = submissions.into_iter().filter_map(|took| took.passes_s).collect();
        if passes.is_empty() {
            return;
        }
        match passes.into_iter().sum::<Result<f64, String>>() {
            Ok(sum) => self.timestamps.push(sum / calls as f64),
            Err(why) => drop(self.unsound.get_or_insert(why)),
        }
    }

    /// The samples of the clock that decides.
    fn deciding(&self) -> &[f64] {
        if self.unsound.is_none() && !self.timestamps.is_empty() { &self.timestamps } else { &self.wall }
    }

    fn deviation(&self) -> f64 {
        stats::summary(self.deciding()).map_or(f64::INFINITY, |summary| stats::deviation(&summary))
    }

    fn timing(self, calls: usize, converged: bool, spent_s: f64, rules: &Rules) -> Result<Timing> {
        let wall = stats::clock(self.wall).context("there are no samples")?;
        let timestamps = stats::clock(self.timestamps).filter(|_| self.unsound.is_none());
        let clock_difference =
            timestamps.as_ref().map(|clock| wall.summary.median_s / clock.summary.median_s - 1.0);
        Ok(Timing {
            converged,
            warm_up_s: 0.0,
            warm_up_calls: 0,
            spent_s,
            calls,
            clocks_disagree: clock_difference.is_some_and(|it| it.is_nan() || it.abs() > rules.clocks),
            clock_difference,
            wall,
            timestamps,
            unsound: self.unsound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        crate::suites::Suite::Standard.rules()
    }

    fn took(wall_s: f64, passes_s: f64) -> Took {
        Took { wall_s, passes_s: Some(Ok(passes_s)) }
    }

    #[test]
    fn clocks_that_disagree_are_flagged() {
        let flagged = |wall: f64| {
            let mut samples = Samples { wall: vec![wall; 3], ..Default::default() };
            (0..3).for_each(|_| samples.timestamps([took(1.0, 1.0), took(2.0, 2.0)], 3));
            samples.timing(1, true, 1.0, &rules()).unwrap().clocks_disagree
        };
        assert!(!flagged(1.04) && flagged(1.06) && flagged(0.94) && flagged(f64::NAN));
    }

    #[test]
    fn one_unsound_sample_drops_the_timestamps() {
        let mut samples = Samples { wall: vec![1.0, 2.0], ..Default::default() };
        samples.timestamps([took(1.0, 1.0)], 1);
        samples.timestamps([Took { wall_s: 1.0, passes_s: Some(Err("zero".into())) }], 1);
        assert_eq!(samples.deciding(), [1.0, 2.0]);
        let timing = samples.timing(1, false, 1.0, &rules()).unwrap();
        assert!(timing.timestamps.is_none() && timing.unsound.as_deref() == Some("zero"));
        assert!(timing.clock_difference.is_none() && !timing.clocks_disagree);
    }
}
