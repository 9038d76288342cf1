//! A small problem for the pipelines of a plan of gradients, by which `self_test` judges them.

use super::{BackwardPlan, Gradients};
use crate::gpu::attention::small::{Small, lying};
use crate::gpu::attention::verdict::Pipelines;
use crate::{Error, Result};

/// A plan of a small call's gradients that runs another plan's pipelines.
pub(crate) struct SmallBackward {
    /// The call, whose forward pass leaves what the gradients start from.
    pub(crate) forward: Small,
    pub(crate) plan: BackwardPlan,
}

impl SmallBackward {
    /// Made for this plan, of few heads: the reference computes every element.
    pub(crate) fn of(plan: &BackwardPlan) -> Result<Self> {
        let forward = Small::of_few_heads(&plan.forward)?;
        let (large, small) = (plan.attention().shape, forward.plan.attention().shape);
        let [dq, dk, dv, dout] = plan.inner.gradients.strides(&large);
        let gradients = Gradients {
            dq_layout: lying(dq, small.heads, small.q_len, small.head_dim),
            dk_layout: lying(dk, small.kv_heads, small.kv_len, small.head_dim),
            dv_layout: lying(dv, small.kv_heads, small.kv_len, small.value_dim),
            dout_layout: lying(dout, small.heads, small.q_len, small.value_dim),
            ..plan.inner.gradients
        };
        let small_plan = forward.plan.backward_on(gradients, Some(plan.inner.choice.clone()))?;
        if small_plan.pipelines()? != plan.pipelines()? {
            let need = "gradients whose small problem runs the same shaders";
            return Err(Error::argument("attention", need, "those of a call that runs others"));
        }
        Ok(Self { forward, plan: small_plan })
    }
}

impl BackwardPlan {
    /// The pipelines that a call of dq, dk and dv runs.
    pub(in crate::gpu) fn pipelines(&self) -> Result<Pipelines> {
        let mut all = vec![self.inner.records.clone()];
        for pass in self.passes(true, true, true) {
            all.extend(pass.compiled(&self.forward)?.iter().cloned());
        }
        all.extend(self.inner.narrow.iter().flatten().map(|last| last.pipeline().clone()));
        Ok(Pipelines(all))
    }
}
