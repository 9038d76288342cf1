//! The terms of a plan's score on the device: what they have of their own, and the caller's tensors, by name. LSH attention uses it, too.

use crate::gpu::bindings::{Bindings, checked_binding, upload};
use crate::gpu::kernels::Kernels;
use crate::inputs::check_names;
use crate::{Attention, ElementType, Result, TermTensor};
use wgpu::{Buffer, BufferBinding};

/// Tensors of terms by name: those of a call.
pub(in crate::gpu) type Given<'a> = Vec<(&'a str, BufferBinding<'a>)>;

/// What the terms of a score bind.
#[derive(Debug)]
pub(in crate::gpu) struct Terms {
    /// The caller's.
    needed: Vec<TermTensor>,
    /// Their own.
    constants: Vec<(&'static str, Buffer)>,
}

impl Terms {
    /// Those of a call whose texts have been [checked](check_customs).
    pub(in crate::gpu) fn new(kernels: &Kernels, attention: &Attention) -> Result<Self> {
        let own = attention.score.rules().filter_map(|rule| rule.constants(&attention.shape));
        let upload = |(name, values): (&'static str, Vec<f32>)| {
            Ok((name, upload(kernels.device(), name, bytemuck::cast_slice(&values))?))
        };
        let constants = own.map(upload).collect::<Result<_>>()?;
        Ok(Self { needed: attention.score.tensors(&attention.shape), constants })
    }

    /// Whether the call has the tensors that the terms need, each once, and no others.
    pub(in crate::gpu) fn check_names(&self, given: &Given<'_>) -> Result<()> {
        check_names(&self.needed, given.iter().map(|(name, _)| *name))
    }

    /// The tensors, each checked and cut. Their names have been checked.
    pub(in crate::gpu) fn checked<'a>(&self, limits: &wgpu::Limits, given: &Given<'a>) -> Result<Given<'a>> {
        let mut tensors = vec![];
        for tensor in &self.needed {
            if let Some((_, binding)) = given.iter().find(|(name, _)| *name == tensor.name) {
                let checked = checked_binding(limits, tensor.name, binding, tensor.len, ElementType::F32)?;
                tensors.push((tensor.name, checked));
            }
        }
        Ok(tensors)
    }

    /// With what the terms bind: the caller's tensors, and their own.
    pub(in crate::gpu) fn bound<'a>(
        &'a self,
        mut bindings: Bindings<'a>,
        given: &[(&str, BufferBinding<'a>)],
    ) -> Bindings<'a> {
        for (name, constants) in &self.constants {
            bindings = bindings.with(name, constants.as_entire_buffer_binding());
        }
        for tensor in &self.needed {
            let given = given.iter().find(|(name, _)| *name == tensor.name);
            bindings = bindings.with_some(tensor.name, given.map(|(_, binding)| binding.clone()));
        }
        bindings
    }
}

/// The caller's own terms: their text, by naga.
#[cfg(feature = "custom")]
pub(in crate::gpu) fn check_customs(attention: &Attention) -> Result<()> {
    super::custom::check_all(attention.score.customs(), &attention.shape)
}

/// The caller's own terms, whose text nothing could check.
#[cfg(not(feature = "custom"))]
pub(in crate::gpu) fn check_customs(attention: &Attention) -> Result<()> {
    attention.score.customs().next().map_or(Ok(()), |term| {
        let need = "the crate's feature `custom`, which checks the WGSL of such a term";
        Err(crate::Error::argument("score", need, format!("{term:?}")))
    })
}
