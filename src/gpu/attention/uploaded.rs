//! The inputs of a slice call on the device.

use super::{AttentionBuffers, Given, UploadedTerms};
use crate::gpu::host::Gpu;
use crate::{Attention, Element, Inputs, Result};
use wgpu::{Buffer, BufferBinding};

/// q, k, v, and the tensors of the score by name.
pub(super) struct Uploaded {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    terms: UploadedTerms,
}

impl Uploaded {
    pub(super) fn new<Q: Element, KV: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &Inputs<'_, Q, KV>,
    ) -> Result<Self> {
        Ok(Self {
            q: gpu.upload("q", inputs.q, attention.len_q())?,
            k: gpu.upload("k", inputs.k, attention.len_k())?,
            v: gpu.upload("v", inputs.v, attention.len_v())?,
            terms: UploadedTerms::new(gpu, attention, &inputs.tensors)?,
        })
    }

    /// q, k and v.
    pub(super) fn rows(&self) -> [BufferBinding<'_>; 3] {
        [&self.q, &self.k, &self.v].map(Buffer::as_entire_buffer_binding)
    }

    pub(super) fn tensors(&self) -> Given<'_> {
        self.terms.bindings()
    }

    /// The buffers of a forward pass into `out`.
    pub(super) fn forward<'a>(&'a self, out: &'a Buffer) -> AttentionBuffers<'a> {
        let [q, k, v] = self.rows();
        let mut buffers = AttentionBuffers::new(q, k, v, out.as_entire_buffer_binding());
        buffers.tensors = self.tensors();
        buffers
    }
}
