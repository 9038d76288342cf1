//! One call on a device, step by step: upload, compute (as often as wanted), read back.

use anyhow::{Context, Result, anyhow, ensure};
use bytemuck::Pod;
use std::time::{Duration, Instant};
use wgpu::{BufferUsages, ErrorFilter};
use wgpu_attention::{
    AttentionBuffers, AttentionCall, AttentionOutput, AttentionPlan, AttentionShape, Element, ElementType,
    Error, Gpu, Inputs,
};

/// A call whose tensors are on the device.
pub(crate) struct Call<'g> {
    gpu: &'g Gpu,
    shape: AttentionShape,
    call: AttentionCall,
    out: wgpu::Buffer,
    lse: Option<wgpu::Buffer>,
}

impl<'g> Call<'g> {
    /// Uploads the inputs and poisons the outputs: what the kernel does not write is NaN.
    pub(crate) fn upload<E: Element>(
        gpu: &'g Gpu,
        plan: &AttentionPlan,
        inputs: &Inputs<'_, E>,
        lse: bool,
    ) -> Result<Self> {
        let shape = *plan.shape();
        inputs.check(&shape)?;
        let input = |name, bytes| buffer(gpu, name, bytes, BufferUsages::STORAGE);
        let q = input("q", bytemuck::cast_slice(inputs.q))?;
        let k = input("k", bytemuck::cast_slice(inputs.k))?;
        let v = input("v", bytemuck::cast_slice(inputs.v))?;
        let bias = inputs.bias.map(|bias| input("bias", bytemuck::cast_slice(bias))).transpose()?;
        let output = |name, elements: usize, element: ElementType| {
            // All bits set: NaN in every element type.
            let poison = vec![0xff; elements * element.size_bytes()];
            buffer(gpu, name, &poison, BufferUsages::STORAGE | BufferUsages::COPY_SRC)
        };
        let out = output("out", shape.len_out(), shape.output)?;
        let lse = lse.then(|| output("lse", shape.len_lse(), ElementType::F32)).transpose()?;
        let call = plan.bind(AttentionBuffers {
            q: q.as_entire_buffer_binding(),
            k: k.as_entire_buffer_binding(),
            v: v.as_entire_buffer_binding(),
            bias: bias.as_ref().map(wgpu::Buffer::as_entire_buffer_binding),
            out: out.as_entire_buffer_binding(),
            lse: lse.as_ref().map(wgpu::Buffer::as_entire_buffer_binding),
        })?;
        Ok(Self { gpu, shape, call, out, lse })
    }

    /// Computes `times` times in one submission and waits; from submit to done.
    pub(crate) fn compute(&self, times: usize) -> Result<Duration> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        (0..times).for_each(|_| self.call.encode(&mut encoder));
        let commands = encoder.finish();
        let start = Instant::now();
        submit(self.gpu, "compute", commands)?;
        Ok(start.elapsed())
    }

    /// Records one call into a pass.
    pub(crate) fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.call.dispatch(pass);
    }

    /// What was computed.
    pub(crate) fn read<O: Element>(&self) -> Result<AttentionOutput<O>> {
        ensure!(O::TYPE == self.shape.output, "out is {}, not {}", self.shape.output, O::TYPE);
        let lse = self.lse.as_ref().map(|lse| read(self.gpu, "lse", lse, self.shape.len_lse()));
        Ok(AttentionOutput {
            out: read(self.gpu, "out", &self.out, self.shape.len_out())?,
            lse: lse.transpose()?.unwrap_or_default(),
        })
    }
}

/// The first elements of a buffer.
pub(crate) fn read<E: Pod>(gpu: &Gpu, name: &str, from: &wgpu::Buffer, elements: usize) -> Result<Vec<E>> {
    let device = gpu.device();
    let copy = checked(device, "read-back", || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: from.size(),
            usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    })?;
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, 0, &copy, 0, from.size());
    submit(gpu, "read-back", encoder.finish())?;
    let (send, receive) = std::sync::mpsc::channel();
    copy.map_async(wgpu::MapMode::Read, .., move |result| drop(send.send(result)));
    device.poll(wgpu::PollType::wait_indefinitely()).context("read-back")?;
    receive
        .recv()
        .map_err(|_| anyhow!("the device dropped the read-back of {name}"))?
        .context("read-back")?;
    let view = copy.slice(..).get_mapped_range().context("read-back")?;
    Ok(bytemuck::pod_collect_to_vec(&view[..elements * size_of::<E>()]))
}

/// Submits and waits.
pub(crate) fn submit(gpu: &Gpu, what: &'static str, commands: wgpu::CommandBuffer) -> Result<()> {
    let device = gpu.device();
    checked(device, what, || {
        let index = gpu.queue().submit([commands]);
        device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None })
    })?
    .context(what)?;
    Ok(())
}

/// A buffer with a content, in whole words and never empty.
pub(crate) fn buffer(
    gpu: &Gpu,
    name: &'static str,
    bytes: &[u8],
    usage: BufferUsages,
) -> Result<wgpu::Buffer> {
    let device = gpu.device();
    let (size, limits) = ((bytes.len() as u64).next_multiple_of(16).max(16), device.limits());
    let most = [
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("max_buffer_size", limits.max_buffer_size),
    ];
    if let Some((limit, have)) = most.into_iter().find(|(_, have)| size > *have) {
        return Err(Error::limit(name, limit, size, have).into());
    }
    let descriptor = wgpu::BufferDescriptor { label: Some(name), size, usage, mapped_at_creation: true };
    let buffer = checked(device, name, || device.create_buffer(&descriptor))?;
    let mut view = buffer.slice(..).get_mapped_range_mut().with_context(|| format!("uploading {name}"))?;
    view.slice(..bytes.len()).copy_from_slice(bytes);
    drop(view);
    buffer.unmap();
    Ok(buffer)
}

/// Runs `create` and returns what the device says against it; uncaught errors would be a panic.
pub(crate) fn checked<T>(device: &wgpu::Device, what: &'static str, create: impl FnOnce() -> T) -> Result<T> {
    let filters = [ErrorFilter::Internal, ErrorFilter::OutOfMemory, ErrorFilter::Validation];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let value = create();
    // A stack: the last one pushed is popped first.
    let errors: Vec<_> =
        scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    match errors.first() {
        None => Ok(value),
        Some(error) => Err(Error::Device { what: what.into(), message: error.to_string() }.into()),
    }
}
