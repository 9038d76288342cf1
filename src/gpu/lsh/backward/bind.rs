//! Buffers checked and bound to the plan of the gradients.

use super::steps::LABEL;
use super::{LshBackwardPlan, LshGradBuffers};
use crate::gpu::bindings::{Access, check_aliasing, checked_binding};
use crate::gpu::call::Call;
use crate::{ElementType, Error, Result};

impl LshBackwardPlan {
    /// Checks the buffers and binds them: nothing is recorded yet. The forward call must run before, with these tensors. Scratch,
    /// [`scratch_bytes`](super::LshBackwardExplanation::scratch_bytes), is allocated for this call alone.
    ///
    /// # Errors
    /// [`Error::Argument`] for a call that asks for no gradient, and as [`LshPlan::bind`](crate::LshPlan::bind).
    pub fn bind(&self, buffers: LshGradBuffers<'_>) -> Result<Call> {
        if buffers.dqk.is_none() && buffers.dv.is_none() {
            return Err(Error::argument("gradients", "a buffer for at least one of dqk and dv", "none"));
        }
        self.forward.check_given(buffers.projections.is_some(), buffers.key_mask.is_some())?;
        self.forward.inner.terms.check_names(&buffers.tensors)?;
        if self.attention().shape.is_empty() {
            return Ok(Call::new(LABEL, []));
        }
        self.call(&self.checked(buffers)?)
    }

    /// The buffers, each checked and cut to its tensor.
    fn checked<'a>(&self, buffers: LshGradBuffers<'a>) -> Result<LshGradBuffers<'a>> {
        let (attention, gradients, options) = (self.attention(), self.gradients(), &self.forward.options);
        let (shape, storage) = (&attention.shape, attention.storage);
        let limits = self.forward.kernels.device().limits();
        let check = |name, binding: &wgpu::BufferBinding<'a>, elements, element| {
            checked_binding(&limits, name, binding, elements, element)
        };
        let some = |name, binding: &Option<wgpu::BufferBinding<'a>>, elements, element| {
            binding.as_ref().map(|binding| check(name, binding, elements, element)).transpose()
        };
        let ([dqk, _, dv, dout], word) = (gradients.lens(shape), ElementType::F32);
        let checked = LshGradBuffers {
            qk: check("qk", &buffers.qk, attention.len_q(), storage.q)?,
            v: check("v", &buffers.v, attention.len_v(), storage.kv)?,
            projections: some("projections", &buffers.projections, options.len_projections(shape), word)?,
            key_mask: some("key_mask", &buffers.key_mask, options.len_key_mask(shape), word)?,
            tensors: self.forward.inner.terms.checked(&limits, &buffers.tensors)?,
            out: check("out", &buffers.out, attention.len_out(), storage.out)?,
            state: check("state", &buffers.state, 2 * shape.len_lse(), word)?,
            dout: check("dout", &buffers.dout, dout, gradients.dout)?,
            dqk: some("dqk", &buffers.dqk, dqk, gradients.dq)?,
            dv: some("dv", &buffers.dv, dv, gradients.dkv)?,
        };
        let mut named = vec![
            ("qk", Some(&checked.qk), Access::Read),
            ("v", Some(&checked.v), Access::Read),
            ("projections", checked.projections.as_ref(), Access::Read),
            ("key_mask", checked.key_mask.as_ref(), Access::Read),
            ("out", Some(&checked.out), Access::Read),
            ("state", Some(&checked.state), Access::Read),
            ("dout", Some(&checked.dout), Access::Read),
            ("dqk", checked.dqk.as_ref(), Access::Write),
            ("dv", checked.dv.as_ref(), Access::Write),
        ];
        named.extend(checked.tensors.iter().map(|(name, binding)| (*name, Some(binding), Access::Read)));
        check_aliasing(&named, self.forward.kernels.options().shared_buffers)?;
        Ok(checked)
    }
}
