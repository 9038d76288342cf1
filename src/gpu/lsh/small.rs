//! A small problem for the pipelines of a plan of LSH attention, by which `self_test` judges them.

use super::backward::LshBackwardPlan;
use super::{LshPlan, sorted_chunks};
use crate::gpu::attention::{Gradients, Outputs, Pipelines, lying};
use crate::{Attention, Error, Result};

/// Heads that show one beside another; of gradients, of which the reference computes every element, there is one.
const HEADS: usize = 2;

impl LshPlan {
    /// A plan of a small call that runs this plan's pipelines: more chunks than one sees, a few heads.
    pub(crate) fn small(&self) -> Result<Self> {
        self.of_heads(HEADS)
    }

    fn of_heads(&self, heads: usize) -> Result<Self> {
        let chunks = &self.inner.chunks;
        let len = (chunks.look_back + chunks.look_ahead + 1) * chunks.chunk + chunks.chunk / 2 + 1;
        let large = &self.attention;
        let mut attention = large.clone();
        let shape = &mut attention.shape;
        (shape.batch, shape.heads, shape.kv_heads) =
            (shape.batch.min(1), shape.heads.min(heads), shape.kv_heads.min(heads));
        (shape.q_len, shape.kv_len) = (shape.q_len.min(len), shape.kv_len.min(len));
        let Attention { shape, .. } = attention;
        let of = |strides, dim| lying(strides, shape.heads, shape.q_len, dim);
        attention.layouts.q = of(large.q_strides(), shape.head_dim);
        attention.layouts.k = attention.layouts.q;
        attention.layouts.v = of(large.v_strides(), shape.value_dim);
        attention.layouts.out = of(large.out_strides(), shape.value_dim);
        // What depends on the length is cut as the large call's is.
        if sorted_chunks(&shape, &self.options) != *chunks {
            return Err(others());
        }
        let small = self.kernels.lsh(attention, self.options.clone())?;
        if small.tested()? == self.tested()? { Ok(small) } else { Err(others()) }
    }

    /// The pipelines that a call of out and lse runs.
    pub(in crate::gpu) fn tested(&self) -> Result<Pipelines> {
        let own = self.pipelines(Outputs::default().lse())?;
        let mut all = self.inner.places.pipelines();
        all.extend(self.inner.sort.argsort_pipelines()?);
        all.extend([Some(&own.first), own.later.as_ref(), own.merge.as_ref()].into_iter().flatten().cloned());
        Ok(Pipelines(all))
    }
}

impl LshBackwardPlan {
    /// A plan of a small call's gradients that runs this plan's pipelines; with the plan of the call.
    pub(crate) fn small(&self) -> Result<(LshPlan, Self)> {
        let forward = self.forward.of_heads(1)?;
        let (large, small) = (self.forward.attention.shape, forward.attention.shape);
        let [dq, _, dv, dout] = self.gradients().strides(&large);
        let of = |strides, dim| lying(strides, small.heads, small.q_len, dim);
        let plan = forward.backward_with(Gradients {
            dq_layout: of(dq, small.head_dim),
            dk_layout: of(dq, small.head_dim),
            dv_layout: of(dv, small.value_dim),
            dout_layout: of(dout, small.value_dim),
            ..*self.gradients()
        })?;
        if plan.tested()? != self.tested()? {
            return Err(others());
        }
        Ok((forward, plan))
    }

    /// The pipelines that a call of dqk and dv runs.
    pub(in crate::gpu) fn tested(&self) -> Result<Pipelines> {
        let mut all = self.forward.inner.places.pipelines();
        all.extend(self.forward.inner.sort.argsort_pipelines()?);
        all.extend(self.own_pipelines()?);
        Ok(Pipelines(all))
    }
}

fn others() -> Error {
    Error::argument("attention", "a call whose small problem runs the same shaders", "one that runs others")
}
