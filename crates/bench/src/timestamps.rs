//! The device's clock: timestamps at both ends of passes, and whether they can be believed.

use crate::call::{checked, read};
use crate::text::one_line;
use anyhow::Result;
use wgpu::{Buffer, BufferUsages, CommandEncoder, ComputePassTimestampWrites, QuerySet};
use wgpu_attention::Gpu;

/// Timed passes of a submission at most.
pub(super) const MOST_PASSES: u32 = 16;

/// Timestamps of the passes of one submission.
pub(super) struct Timestamps {
    set: QuerySet,
    ticks: Buffer,
    /// Seconds of a tick.
    tick_s: f64,
}

impl Timestamps {
    /// Or why the device has none.
    pub(super) async fn new(gpu: &Gpu) -> Result<Self, String> {
        let device = gpu.device();
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err("the adapter has no timestamp queries".into());
        }
        let tick_s = 1e-9 * f64::from(gpu.queue().get_timestamp_period());
        if tick_s.is_nan() || tick_s <= 0.0 {
            return Err(format!("the adapter's timestamps tick every {tick_s} s"));
        }
        let count = 2 * MOST_PASSES;
        let create = || {
            let set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("bench"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let ticks = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("ticks"),
                size: 8 * u64::from(count),
                usage: BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            Self { set, ticks, tick_s }
        };
        checked(device, "timestamps", create).await.map_err(|error| one_line(&format!("{error:#}")))
    }

    /// What the n-th timed pass of a submission writes.
    pub(super) fn around(&self, pass: u32) -> ComputePassTimestampWrites<'_> {
        ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * pass),
            end_of_pass_write_index: Some(2 * pass + 1),
        }
    }

    /// Records that so many passes wrote.
    pub(super) fn resolve(&self, encoder: &mut CommandEncoder, passes: u32) {
        encoder.resolve_query_set(&self.set, 0..2 * passes, &self.ticks, 0);
    }

    /// Seconds of these passes together, in a submission that is done and took `wall_s`; or why they are not sound.
    pub(super) async fn passes_s(&self, gpu: &Gpu, passes: u32, wall_s: f64) -> Result<Result<f64, String>> {
        let ticks: Vec<u64> = read(gpu, "timestamps", &self.ticks, 2 * passes as usize).await?;
        Ok(passes_s(&ticks, self.tick_s, wall_s))
    }
}

/// Seconds of all passes together, from ticks at their beginnings and ends; or why they are not sound: zero, out of order, or
/// longer than all there was.
fn passes_s(ticks: &[u64], tick_s: f64, wall_s: f64) -> Result<f64, String> {
    if let Some(zero) = ticks.iter().position(|&tick| tick == 0) {
        return Err(format!("timestamp {zero} is zero"));
    }
    if !ticks.is_sorted() {
        return Err("timestamps are out of order".into());
    }
    let passes_s = tick_s * ticks.chunks(2).map(|pass| (pass[1] - pass[0]) as f64).sum::<f64>();
    if passes_s <= 0.0 {
        return Err("timestamps do not advance".into());
    }
    if passes_s > 1.05 * wall_s {
        return Err(format!("timestamps say {passes_s:.3e} s of a submission that took {wall_s:.3e} s"));
    }
    Ok(passes_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_that_cannot_be_right_are_dropped() {
        let why = |ticks: &[u64]| passes_s(ticks, 1e-9, 1e-3).expect_err("not sound");
        assert!((passes_s(&[100, 600, 700, 800], 1e-9, 1e-3).unwrap() - 6e-7).abs() < 1e-20);
        assert!(why(&[100, 0]).contains("timestamp 1 is zero"));
        assert!(
            why(&[600, 100]).contains("out of order") && why(&[100, 600, 500, 700]).contains("out of order")
        );
        assert!(why(&[100, 100]).contains("do not advance"));
        assert!(why(&[100, 2_000_100]).contains("timestamps say"));
    }
}
