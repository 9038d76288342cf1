use super::guards::{Extents, Guarded, GuardedInputs};
use wgpu_attention::{Attention, AttentionBuffers, Call, Element, Gpu, Inputs, Parts};

/// What a kernel wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<O> {
    /// Contiguous, whatever the layout.
    pub out: Vec<O>,
    /// Where it was asked for.
    pub lse: Option<Vec<f32>>,
}

/// One call on buffers of its own: outputs poisoned, poison around all tensors and between their rows. An error says
/// which poison was overwritten; anything that the library refuses is a panic, for all our calls are good.
pub fn run<Q: Element, KV: Element, O: Element>(
    gpu: &Gpu,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    parts: &Parts,
    lse: bool,
) -> Result<Outcome<O>, String> {
    run_times(gpu, attention, inputs, parts, lse, 1)
}

/// [`run`], with the call recorded several times in one encoder.
pub fn run_times<Q: Element, KV: Element, O: Element>(
    gpu: &Gpu,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    parts: &Parts,
    lse: bool,
    times: usize,
) -> Result<Outcome<O>, String> {
    let bound = Bound::new::<Q, KV, O>(gpu, attention, inputs, parts, lse);
    bound.take(&read(gpu, &bound.written(), |encoder| (0..times).for_each(|_| bound.call.encode(encoder))))
}

/// A call on buffers of its own, ready to record.
pub struct Bound {
    /// Ready to be recorded.
    pub call: Call,
    out: Guarded,
    lse: Option<Guarded>,
}

impl Bound {
    /// The buffers that the call writes.
    pub fn written(&self) -> Vec<&Guarded> {
        [&self.out].into_iter().chain(&self.lse).collect()
    }

    /// What it wrote, from what was read back of [`written`](Self::written).
    pub fn take<O: Element>(&self, bytes: &[Vec<u8>]) -> Result<Outcome<O>, String> {
        Ok(Outcome {
            out: self.out.take(&bytes[0])?,
            lse: self.lse.as_ref().map(|lse| lse.take(&bytes[1])).transpose()?,
        })
    }

    /// Uploads the inputs, poisons the outputs, binds.
    pub fn new<Q: Element, KV: Element, O: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &Inputs<'_, Q, KV>,
        parts: &Parts,
        lse: bool,
    ) -> Self {
        let device = gpu.device();
        let own = GuardedInputs::new(device, attention, inputs);
        let is_computed = |head| attention.heads.computes(head);
        let out = Guarded::of_rows(device, "out", size_of::<O>(), attention);
        let out = out.leaving(Extents::of_out(attention), is_computed, 0.0);
        let at = Extents::of_lse(attention);
        let guarded_lse = || Guarded::output(device, "lse", 4, at).leaving(at, is_computed, f32::MIN.into());
        let lse = lse.then(guarded_lse);

        let plan = gpu.kernels().attention_parts(attention, parts);
        let plan = plan.unwrap_or_else(|e| panic!("{e}\n{attention:?}"));
        let mut buffers =
            AttentionBuffers::new(own.q.binding(), own.k.binding(), own.v.binding(), out.binding());
        buffers.tensors = own.tensors();
        buffers.lse = lse.as_ref().map(Guarded::binding);
        let call = plan.bind(buffers).unwrap_or_else(|e| panic!("{e}\n{attention:?}"));
        Self { call, out, lse }
    }
}

/// Submits what `record` records, and reads buffers back.
pub(super) fn read(
    gpu: &Gpu,
    from: &[&Guarded],
    record: impl FnOnce(&mut wgpu::CommandEncoder),
) -> Vec<Vec<u8>> {
    let device = gpu.device();
    let mut encoder = device.create_command_encoder(&Default::default());
    record(&mut encoder);
    let copies: Vec<_> = from
        .iter()
        .map(|from| {
            let copy = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read-back"),
                size: from.buffer.size(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            encoder.copy_buffer_to_buffer(&from.buffer, 0, &copy, 0, copy.size());
            copy
        })
        .collect();
    let submission = gpu.queue().submit([encoder.finish()]);
    for copy in &copies {
        copy.map_async(wgpu::MapMode::Read, .., |result| result.expect("mapping the copy"));
    }
    let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: None };
    device.poll(wait).expect("waiting for the device");
    copies.iter().map(|copy| copy.slice(..).get_mapped_range().expect("mapped").to_vec()).collect()
}
