//! A plan with its buffers, ready to be recorded.

use super::pipeline::Step;

/// A plan with its buffers: records itself into the caller's encoder or pass, as often as wanted. Made by the `bind` of every
/// plan.
///
/// ```no_run
/// # fn example(call: &wgpu_attention::Call, encoder: &mut wgpu::CommandEncoder) {
/// call.encode(encoder); // a pass of its own
/// let mut pass = encoder.begin_compute_pass(&Default::default());
/// call.dispatch(&mut pass); // or in a pass with others
/// # }
/// ```
#[derive(Debug)]
pub struct Call {
    label: &'static str,
    steps: Vec<(Stage, Step)>,
}

/// What a dispatch of a call is for, so that parts of a call can be timed by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The kernel that gives the plan its name; of LSH attention the blocked kernel, round by round.
    Main,
    /// Buckets, and the norms of the keys (LSH attention).
    Hash,
    /// What the passes need of each row (backward).
    Prepare,
    /// The order of the places (LSH attention).
    Sort,
    /// Splits merged, lse from (m, l), f32 rows to 16 bits: where several parts, rounds or splits need it.
    Merge,
}

impl Stage {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 5] = [Self::Hash, Self::Sort, Self::Prepare, Self::Main, Self::Merge];
}

impl Call {
    /// A call of these steps; of none where there is nothing to compute.
    pub(super) fn new(label: &'static str, steps: impl IntoIterator<Item = (Stage, Step)>) -> Self {
        Self { label, steps: steps.into_iter().collect() }
    }

    /// Calls one after the other.
    pub(super) fn chain(label: &'static str, calls: impl IntoIterator<Item = Self>) -> Self {
        Self::new(label, calls.into_iter().flat_map(|call| call.steps))
    }

    /// Calls one after the other; those before the last prepare it.
    pub(super) fn in_turn(label: &'static str, before: impl IntoIterator<Item = Self>, last: Self) -> Self {
        let before = before.into_iter().flat_map(|call| call.steps);
        let before = before.map(|(_, step)| (Stage::Prepare, step));
        Self::new(label, before.chain(last.steps))
    }

    /// A call whose steps are all the kernel itself.
    pub(super) fn of_steps(label: &'static str, steps: impl IntoIterator<Item = Step>) -> Self {
        Self::new(label, steps.into_iter().map(|step| (Stage::Main, step)))
    }

    /// Records a compute pass of its own; nothing where there is nothing to compute.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.steps.is_empty() {
            return;
        }
        let descriptor = wgpu::ComputePassDescriptor { label: Some(self.label), timestamp_writes: None };
        self.dispatch(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Records into the caller's pass; leaves its own pipeline and bind group 0 set.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.steps.iter().for_each(|(_, step)| step.record(pass));
    }

    /// Records one stage alone, to measure it. A stage reads what those before it left: the first time, record all.
    pub fn dispatch_stage(&self, pass: &mut wgpu::ComputePass<'_>, stage: Stage) {
        self.steps.iter().filter(|step| step.0 == stage).for_each(|(_, step)| step.record(pass));
    }

    /// What it computes, in two words: the label of its passes.
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// Dispatches that [`encode`](Self::encode) records.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(|(_, step)| step.dispatches()).sum()
    }
}
