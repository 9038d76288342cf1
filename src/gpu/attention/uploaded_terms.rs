//! The tensors of a slice call's terms on the device. LSH attention uses it, too.

use super::Given;
use crate::gpu::host::Gpu;
use crate::inputs::tensor_of;
use crate::{Attention, Result};
use wgpu::Buffer;

/// The tensors of a slice call's terms, on the device.
pub(in crate::gpu) struct UploadedTerms(Vec<(&'static str, Buffer)>);

impl UploadedTerms {
    /// Those of a call, which have been checked.
    pub(in crate::gpu) fn new(gpu: &Gpu, attention: &Attention, given: &[(&str, &[f32])]) -> Result<Self> {
        let tensors = attention.score.tensors(&attention.shape).into_iter().filter_map(|tensor| {
            let values = tensor_of(given, tensor.name)?;
            Some(gpu.upload(tensor.name, values, tensor.len).map(|buffer| (tensor.name, buffer)))
        });
        tensors.collect::<Result<_>>().map(Self)
    }

    pub(in crate::gpu) fn bindings(&self) -> Given<'_> {
        self.0.iter().map(|(name, buffer)| (*name, buffer.as_entire_buffer_binding())).collect()
    }
}
