use super::guards::{Extents, Guarded};
use wgpu_attention::{AttentionBuffers, AttentionCall, AttentionShape, Element, Gpu, Inputs, Parts, Strides};

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
pub fn run<E: Element, O: Element>(
    gpu: &Gpu,
    shape: &AttentionShape,
    inputs: &Inputs<'_, E>,
    parts: &Parts,
    lse: bool,
) -> Result<Outcome<O>, String> {
    run_times(gpu, shape, inputs, parts, lse, 1)
}

/// [`run`], with the call recorded several times in one encoder.
pub fn run_times<E: Element, O: Element>(
    gpu: &Gpu,
    shape: &AttentionShape,
    inputs: &Inputs<'_, E>,
    parts: &Parts,
    lse: bool,
    times: usize,
) -> Result<Outcome<O>, String> {
    let bound = Bound::new::<E, O>(gpu, shape, inputs, parts, lse);
    bound.take(&read(gpu, &bound.written(), |encoder| (0..times).for_each(|_| bound.call.encode(encoder))))
}

/// A call on buffers of its own, ready to record.
pub struct Bound {
    /// Ready to be recorded.
    pub call: AttentionCall,
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
    pub fn new<E: Element, O: Element>(
        gpu: &Gpu,
        shape: &AttentionShape,
        inputs: &Inputs<'_, E>,
        parts: &Parts,
        lse: bool,
    ) -> Self {
        let device = gpu.device();
        let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
        let rows =
            |strides, heads, rows, dim, len| Extents { strides, sizes: [batch, heads, rows], dim, len };
        let one_row = |len: usize| Extents {
            strides: Strides { batch: 0, head: 0, row: 0 },
            sizes: [1, 1, 1],
            dim: len,
            len,
        };
        let q = rows(shape.q_strides(), heads, q_len, head_dim, shape.len_q());
        let k = rows(shape.k_strides(), kv_heads, kv_len, head_dim, shape.len_k());
        let v = rows(shape.v_strides(), kv_heads, kv_len, value_dim, shape.len_v());

        let q = Guarded::input(device, "q", inputs.q, q);
        let k = Guarded::input(device, "k", inputs.k, k);
        let v = Guarded::input(device, "v", inputs.v, v);
        let bias = inputs.bias.map(|bias| Guarded::input(device, "bias", bias, one_row(shape.len_bias())));
        let out = Guarded::of_rows(device, "out", size_of::<O>(), shape);
        let lse = lse.then(|| Guarded::output(device, "lse", 4, one_row(shape.len_lse())));

        let plan = gpu.kernels().attention(shape, parts).unwrap_or_else(|e| panic!("{e}\n{shape:?}"));
        let buffers = AttentionBuffers {
            q: q.binding(),
            k: k.binding(),
            v: v.binding(),
            bias: bias.as_ref().map(Guarded::binding),
            out: out.binding(),
            lse: lse.as_ref().map(Guarded::binding),
        };
        let call = plan.bind(buffers).unwrap_or_else(|e| panic!("{e}\n{shape:?}"));
        Self { call, out, lse }
    }
}

/// Submits what `record` records, and reads buffers back.
fn read(gpu: &Gpu, from: &[&Guarded], record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Vec<Vec<u8>> {
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
