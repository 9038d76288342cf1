//! The tensors of a call on slices, on the device.

use crate::gpu::Gpu;
use crate::gpu::attention::{Given, UploadedTerms};
use crate::lsh::LshInputs;
use crate::{Attention, Element, Result};
use wgpu::{Buffer, BufferBinding};

/// What both directions read.
pub(super) struct Uploaded {
    qk: Buffer,
    v: Buffer,
    projections: Option<Buffer>,
    key_mask: Option<Buffer>,
    terms: UploadedTerms,
}

impl Uploaded {
    /// Inputs that have been checked; a word per position of a mask.
    pub(super) fn new<I: Element>(
        gpu: &Gpu,
        attention: &Attention,
        inputs: &LshInputs<'_, I>,
    ) -> Result<Self> {
        let upload = |mask: &[bool]| {
            let words: Vec<u32> = mask.iter().map(|&seen| seen.into()).collect();
            gpu.upload("key_mask", &words, words.len())
        };
        Ok(Self {
            qk: gpu.upload("qk", inputs.qk, attention.len_q())?,
            v: gpu.upload("v", inputs.v, attention.len_v())?,
            projections: inputs.projections.map(|p| gpu.upload("projections", p, p.len())).transpose()?,
            key_mask: inputs.key_mask.map(upload).transpose()?,
            terms: UploadedTerms::new(gpu, attention, &inputs.tensors)?,
        })
    }

    /// qk and v.
    pub(super) fn rows(&self) -> [BufferBinding<'_>; 2] {
        [&self.qk, &self.v].map(Buffer::as_entire_buffer_binding)
    }

    pub(super) fn projections(&self) -> Option<BufferBinding<'_>> {
        self.projections.as_ref().map(Buffer::as_entire_buffer_binding)
    }

    pub(super) fn key_mask(&self) -> Option<BufferBinding<'_>> {
        self.key_mask.as_ref().map(Buffer::as_entire_buffer_binding)
    }

    pub(super) fn tensors(&self) -> Given<'_> {
        self.terms.bindings()
    }
}
