//! The inputs of a slice call on the device.

use super::AttentionBuffers;
use crate::gpu::host::Gpu;
use crate::{Attention, Element, Inputs, Result};
use wgpu::{Buffer, BufferBinding};

/// q, k, v, and the tensors of the score by name.
pub(super) struct Uploaded {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    tensors: Vec<(&'static str, Buffer)>,
}

impl Uploaded {
    pub(super) fn new<Q: Element, KV: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &Inputs<'_, Q, KV>,
    ) -> Result<Self> {
        let tensors = attention.score.tensors(&attention.shape).into_iter().filter_map(|tensor| {
            let values = inputs.get(tensor.name)?;
            Some(gpu.upload(tensor.name, values, tensor.len).map(|buffer| (tensor.name, buffer)))
        });
        Ok(Self {
            q: gpu.upload("q", inputs.q, attention.len_q())?,
            k: gpu.upload("k", inputs.k, attention.len_k())?,
            v: gpu.upload("v", inputs.v, attention.len_v())?,
            tensors: tensors.collect::<Result<_>>()?,
        })
    }

    /// q, k and v.
    pub(super) fn rows(&self) -> [BufferBinding<'_>; 3] {
        [&self.q, &self.k, &self.v].map(Buffer::as_entire_buffer_binding)
    }

    pub(super) fn tensors(&self) -> Vec<(&str, BufferBinding<'_>)> {
        self.tensors.iter().map(|(name, buffer)| (*name, buffer.as_entire_buffer_binding())).collect()
    }

    /// The buffers of a forward pass into `out`.
    pub(super) fn forward<'a>(&'a self, out: &'a Buffer) -> AttentionBuffers<'a> {
        let [q, k, v] = self.rows();
        let mut buffers = AttentionBuffers::new(q, k, v, out.as_entire_buffer_binding());
        buffers.tensors = self.tensors();
        buffers
    }
}
