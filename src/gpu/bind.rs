//! Buffers checked and bound to a plan: a call, ready to record.

use super::pipeline::{Step, Use};
use super::plan::{AttentionPlan, Compiled, finish_params};
use super::scope::allocated;
use crate::{ElementType, Error, Result};

/// The buffers of one call. All need `BufferUsages::STORAGE`; out and lse may not be buffers that are also read.
///
/// A binding's offset must be a multiple of the device's `min_storage_buffer_offset_alignment`, its size whole 32-bit
/// words; where it names no size, what lies behind the offset is used. Only the tensor's own elements are touched: the
/// bytes between its rows, and behind it, stay as they are.
#[derive(Debug, Clone)]
pub struct AttentionBuffers<'a> {
    /// q `[B, H, Lq, d]`, [`AttentionShape::len_q`](crate::AttentionShape::len_q) elements of the input type.
    pub q: wgpu::BufferBinding<'a>,
    /// k `[B, Hkv, Lk, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// v `[B, Hkv, Lk, dv]`.
    pub v: wgpu::BufferBinding<'a>,
    /// The additive bias in f32, if and only if the shape has one.
    pub bias: Option<wgpu::BufferBinding<'a>>,
    /// out `[B, H, Lq, dv]`, in the output type.
    pub out: wgpu::BufferBinding<'a>,
    /// lse `[B, H, Lq]` in f32, where wanted; `f32::MIN` for rows without a key.
    pub lse: Option<wgpu::BufferBinding<'a>>,
}

/// A plan with its buffers: records itself into the caller's encoder or pass, as often as wanted.
#[derive(Debug)]
pub struct AttentionCall {
    steps: Vec<Step>,
}

impl AttentionCall {
    /// Records a compute pass of its own.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.steps.is_empty() {
            return;
        }
        let label = Some("attention");
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
        self.dispatch(&mut pass);
    }

    /// Records into the caller's pass; leaves its own pipeline and bind group 0 set.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.steps.iter().for_each(|step| step.record(pass));
    }

    /// Dispatches that [`encode`](Self::encode) records.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(Step::dispatches).sum()
    }

    pub(super) fn new(plan: &AttentionPlan, buffers: AttentionBuffers<'_>) -> Result<Self> {
        let shape = &plan.shape;
        if shape.bias.is_some() != buffers.bias.is_some() {
            let (need, got) = if shape.bias.is_some() {
                ("a buffer, since the shape has a bias", "none")
            } else {
                ("none, since the shape has no bias", "a buffer")
            };
            return Err(Error::argument("bias", need, got));
        }
        if shape.is_empty() {
            return Ok(Self { steps: vec![] });
        }
        let device = plan.kernels.device();
        let limits = device.limits();
        let f32 = ElementType::F32;
        let q = checked_binding(&limits, "q", &buffers.q, shape.len_q(), shape.input)?;
        let k = checked_binding(&limits, "k", &buffers.k, shape.len_k(), shape.input)?;
        let v = checked_binding(&limits, "v", &buffers.v, shape.len_v(), shape.input)?;
        let out = checked_binding(&limits, "out", &buffers.out, shape.len_out(), shape.output)?;
        let bias = buffers
            .bias
            .as_ref()
            .map(|b| checked_binding(&limits, "bias", b, shape.len_bias(), f32))
            .transpose()?;
        let lse = buffers
            .lse
            .as_ref()
            .map(|b| checked_binding(&limits, "lse", b, shape.len_lse(), f32))
            .transpose()?;
        let inputs = [("q", Some(&q)), ("k", Some(&k)), ("v", Some(&v)), ("bias", bias.as_ref())];
        check_separate(&inputs, &out, lse.as_ref())?;

        let schedule = &plan.inner.schedule;
        let [state_bytes, merged_bytes] = schedule.scratch_bytes;
        let scratch = |label, bytes: u64| {
            let have = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
            if bytes > have {
                return Err(Error::limit(label, "max_storage_buffer_binding_size", bytes, have));
            }
            (bytes > 0).then(|| storage(device, label, bytes)).transpose()
        };
        let state = scratch("scratch for the merged (m, l)", state_bytes)?;
        let merged = scratch("scratch for the merged rows", merged_bytes)?;

        let Compiled { parts: pipelines, finish } = plan.pipelines(lse.is_some())?;
        let read = plan.kernels.unused(Use::Read);
        let write = plan.kernels.unused(Use::Write);
        let state_binding = state.as_ref().map(wgpu::Buffer::as_entire_buffer_binding);
        let merged_binding = merged.as_ref().map(wgpu::Buffer::as_entire_buffer_binding);

        let mut steps = vec![];
        for (part, pipeline) in plan.inner.parts.iter().zip(&pipelines) {
            let params = if merged.is_some() { part.params.with_merged_rows(shape) } else { part.params };
            let stats = if plan.merges() { &state_binding } else { &lse };
            let bindings = [
                q.clone(),
                k.clone(),
                v.clone(),
                part.tables.as_entire_buffer_binding(),
                merged_binding.as_ref().unwrap_or(&out).clone(),
                stats.as_ref().unwrap_or(&write).clone(),
                bias.as_ref().unwrap_or(&read).clone(),
            ];
            steps.push(Step::new(device, pipeline, params, part.work, &bindings)?);
        }
        if let Some(pipeline) = finish {
            let (params, work) = finish_params(shape, schedule.splits);
            // A finish that only writes lse has no use for out, nor one that only writes rows for lse; and one buffer may
            // not be bound twice for writing.
            let writes_rows = merged_binding.is_some();
            let bindings = [
                state_binding.clone().unwrap_or(read.clone()),
                merged_binding.clone().unwrap_or(read),
                if writes_rows { out } else { write.clone() },
                lse.unwrap_or(write),
            ];
            steps.push(Step::new(device, &pipeline, params, work, &bindings)?);
        }
        Ok(Self { steps })
    }
}

/// Scratch on the device.
pub(super) fn storage(device: &wgpu::Device, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor =
        wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
    allocated(device, label, bytes, || device.create_buffer(&descriptor))
}

/// The binding cut to the bytes that the tensor has, or what is wrong with it.
pub(super) fn checked_binding<'a>(
    limits: &wgpu::Limits,
    name: &'static str,
    binding: &wgpu::BufferBinding<'a>,
    elements: usize,
    element: ElementType,
) -> Result<wgpu::BufferBinding<'a>> {
    let buffer = binding.buffer;
    if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Err(Error::argument(
            name,
            "a buffer with BufferUsages::STORAGE",
            format!("{:?}", buffer.usage()),
        ));
    }
    let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
    if !binding.offset.is_multiple_of(alignment) {
        let need =
            format!("an offset that is a multiple of {alignment} (min_storage_buffer_offset_alignment)");
        return Err(Error::argument(name, need, format!("offset {}", binding.offset)));
    }
    // Whole words: the last 16-bit element of an odd tensor shares its word with padding.
    let need = (elements as u64 * element.size_bytes() as u64).next_multiple_of(4);
    let behind = buffer.size().saturating_sub(binding.offset);
    let size = binding.size.map_or(behind, |size| size.get());
    if size < need || size > behind {
        let needed = format!("{need} bytes ({elements} elements of {element})");
        let got = format!("{size} bytes at offset {} of a buffer of {}", binding.offset, buffer.size());
        return Err(Error::argument(name, needed, got));
    }
    if need > limits.max_storage_buffer_binding_size {
        let have = limits.max_storage_buffer_binding_size;
        return Err(Error::limit(name, "max_storage_buffer_binding_size", need, have));
    }
    Ok(wgpu::BufferBinding { buffer, offset: binding.offset, size: wgpu::BufferSize::new(need) })
}

/// WebGPU forbids a dispatch to write a buffer that it also reads, even elsewhere in it, and to write the same bytes
/// through two bindings.
fn check_separate(
    inputs: &[(&str, Option<&wgpu::BufferBinding<'_>>)],
    out: &wgpu::BufferBinding<'_>,
    lse: Option<&wgpu::BufferBinding<'_>>,
) -> Result<()> {
    for (name, output) in [("out", Some(out)), ("lse", lse)] {
        let Some(output) = output else { continue };
        let same = |input: &&(&str, Option<&wgpu::BufferBinding<'_>>)| {
            input.1.is_some_and(|input| input.buffer == output.buffer)
        };
        if let Some((other, _)) = inputs.iter().find(same) {
            return Err(Error::argument(
                name,
                format!("a buffer other than that of {other}"),
                "the same buffer",
            ));
        }
    }
    let bytes = |b: &wgpu::BufferBinding<'_>| b.offset..b.offset + b.size.map_or(0, |size| size.get());
    if let Some(lse) = lse.filter(|lse| lse.buffer == out.buffer) {
        let (out, lse) = (bytes(out), bytes(lse));
        if out.start < lse.end && lse.start < out.end {
            let got = format!("bytes {lse:?} beside {out:?} of one buffer");
            return Err(Error::argument("lse", "bytes apart from those of out", got));
        }
    }
    Ok(())
}
