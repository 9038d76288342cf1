//! Gradients of LSH attention on the device: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LshBackwardPlan`]: its passes, compiled |
//! | `pass.rs` | a pass over all rounds: its shaders, parameters, and how its work is cut |
//! | `buffers.rs` | [`LshGradBuffers`] |
//! | `bind.rs` | the buffers checked and bound to a plan |
//! | `steps.rs` | the dispatches of a bound call |
//! | `host.rs` | slices in, `Vec`s out |

mod bind;
mod buffers;
mod host;
mod pass;
mod steps;

pub use buffers::LshGradBuffers;
pub use host::LshGradients;

use super::LshPlan;
use crate::gpu::attention::{Gradients, merge_variant};
use crate::gpu::pipeline::Pipeline;
use crate::wgsl::{BackwardRows, JoinVariant, MergeVariant, RecordVariant};
use crate::{Attention, ElementType, Error, Result};
use pass::Pass;
use std::sync::Arc;

/// The gradients of a call of LSH attention, compiled. Made by [`LshPlan::backward`]; clones share it.
///
/// The call hashes and sorts once more, which gives the places of the forward call, bit for bit, and keeps nothing between the two that
/// grows with the rounds. Then a record of 20 bytes per position; a pass by queries, a pass by keys over the chunks that see them, round after
/// round, each adding to the sums of the round before; and a kernel that joins what a position got as a query with what it got as a key,
/// through its norm. No atomics: the same call gives the same bits.
#[derive(Debug, Clone)]
pub struct LshBackwardPlan {
    pub(super) forward: LshPlan,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    gradients: Gradients,
    records: Arc<Pipeline>,
    queries: Pass,
    /// Where one pass writes both sums of keys, within the device's storage buffers; of the gradient by keys alone; of dv alone.
    keys: [Pass; 3],
    join: Arc<Pipeline>,
    /// Brings dv to 16 bits.
    narrow: Option<Arc<Pipeline>>,
    explanation: LshBackwardExplanation,
}

/// What the gradients of LSH attention will do and what they cost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LshBackwardExplanation {
    /// Pairs of query and key places in chunks that see each other, over all rounds, heads and batch items: each of the two passes visits
    /// them.
    pub pairs: u64,
    /// Floating-point operations on these pairs: 8 d + 6 dv each.
    pub flops: f64,
    /// Bytes of a call's scratch without those of the sort: buckets, order, norms and tables as the forward call has them, records, and sums
    /// in f32.
    pub scratch_bytes: u64,
}

impl LshPlan {
    /// Plans the gradients of this call, by qk and v, each stored and lying as its tensor does, from a gradient of out that is stored and
    /// lies as out does. Buckets are constants.
    ///
    /// # Errors
    /// As [`backward_with`](Self::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::wgpu::{Buffer, CommandEncoder, Device};
    /// use wgpu_attention::{AttentionShape, Kernels, LshBuffers, LshGradBuffers, LshOptions, Options};
    ///
    /// fn record(device: &Device, encoder: &mut CommandEncoder, buffers: [&Buffer; 7]) -> wgpu_attention::Result<()> {
    ///     let kernels = Kernels::new(device, Options::default())?;
    ///     let plan = kernels.lsh(AttentionShape::new(1, 8, 16384, 64), LshOptions::new(4, 256, 64).causal(true))?;
    ///     let backward = plan.backward()?;
    ///     let [qk, v, out, state, dout, dqk, dv] = buffers.map(Buffer::as_entire_buffer_binding);
    ///     let forward = LshBuffers::new(qk.clone(), v.clone(), out.clone()).state(state.clone());
    ///     plan.bind(forward)?.encode(encoder);
    ///     let gradients = LshGradBuffers::new(qk, v, out, state, dout).dqk(dqk).dv(dv);
    ///     backward.bind(gradients)?.encode(encoder);
    ///     Ok(())
    /// }
    /// ```
    pub fn backward(&self) -> Result<LshBackwardPlan> {
        self.backward_with(Gradients::of(&self.attention))
    }

    /// [`backward`](Self::backward), with gradients in types and places of their own: `dq` of [`Gradients`] is dqk, `dkv` is dv, and
    /// there is no dk.
    ///
    /// # Errors
    /// [`Error::Argument`] for gradients that overlap, and for a score with a term whose derivative is not known; [`Error::Limit`] where the
    /// device is too small; [`Error::Device`] for what wgpu reports while compiling.
    pub fn backward_with(&self, gradients: Gradients) -> Result<LshBackwardPlan> {
        let attention = &self.attention;
        gradients.check(attention)?;
        if let Some(name) = attention.score.without_slope() {
            return Err(Error::argument("score", "terms whose derivative is known: `Custom::slope`", name));
        }
        let kernels = &self.kernels;
        let queries = Pass::new(self, &gradients, BackwardRows::Queries)?;
        let both = Pass::new(self, &gradients, BackwardRows::Keys { dk: true, dv: true })?;
        let one = |dk| both.of_rows(BackwardRows::Keys { dk, dv: !dk });
        let [dk, dv] = [one(true), one(false)];
        let narrow = (gradients.dkv != ElementType::F32).then(|| narrow_variant(attention, &gradients));
        let inner = Inner {
            records: kernels.pipeline(record_variant(attention, &gradients).shader())?,
            join: kernels.pipeline(join_variant(attention, &gradients).shader())?,
            narrow: narrow.map(|narrow| kernels.pipeline(narrow.shader())).transpose()?,
            explanation: self.explain_backward(&gradients),
            gradients,
            queries,
            keys: [both, dk, dv],
        };
        let plan = LshBackwardPlan { forward: self.clone(), inner: Arc::new(inner) };
        // Compiling here, not in `bind`, keeps the cost where the caller expects it.
        for pass in plan.passes(true, true) {
            pass.compiled(&plan.forward)?;
        }
        Ok(plan)
    }

    fn explain_backward(&self, gradients: &Gradients) -> LshBackwardExplanation {
        let (shape, pairs) = (&self.attention.shape, self.inner.explanation.pairs);
        let sums = 4 * shape.len_lse() as u64;
        let dv = if gradients.dkv == ElementType::F32 { 0 } else { groups(shape.value_dim) };
        LshBackwardExplanation {
            pairs,
            flops: (8 * shape.head_dim + 6 * shape.value_dim) as f64 * pairs as f64,
            scratch_bytes: self.place_bytes()
                + record_bytes(&self.attention)
                + 4 * sums * (2 * groups(shape.head_dim) + dv) as u64,
        }
    }
}

impl LshBackwardPlan {
    /// The call whose gradients these are.
    pub fn attention(&self) -> &Attention {
        self.forward.attention()
    }

    /// How the gradients are stored and where they lie: `dq` is dqk, `dkv` is dv.
    pub fn gradients(&self) -> &Gradients {
        &self.inner.gradients
    }

    /// What the plan will do and what it costs.
    pub fn explain(&self) -> &LshBackwardExplanation {
        &self.inner.explanation
    }

    /// The passes that compute these gradients.
    fn passes(&self, dqk: bool, dv: bool) -> Vec<&Pass> {
        let [both, only_dk, only_dv] = &self.inner.keys;
        let mut passes: Vec<_> = dqk.then_some(&self.inner.queries).into_iter().collect();
        if dqk && dv && both.fits(&self.forward) {
            passes.push(both);
        } else {
            passes.extend(dqk.then_some(only_dk));
            passes.extend(dv.then_some(only_dv));
        }
        passes
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl LshBackwardPlan {
    /// The pipelines of a call of dqk and dv, behind those that find the places.
    pub(super) fn own_pipelines(&self) -> Result<Vec<Arc<Pipeline>>> {
        let mut all = vec![self.inner.records.clone(), self.inner.join.clone()];
        all.extend(self.inner.narrow.clone());
        for pass in self.passes(true, true) {
            all.extend(pass.compiled(&self.forward)?.iter().cloned());
        }
        Ok(all)
    }
}

fn whole(dim: usize) -> bool {
    dim.is_multiple_of(4)
}

/// Groups of 4 elements of a row of sums.
fn groups(dim: usize) -> usize {
    dim.div_ceil(4)
}

/// Of the records of a call, and of the norms behind them.
fn record_bytes(attention: &Attention) -> u64 {
    16 * (attention.shape.len_lse() + attention.shape.len_lse().div_ceil(4)) as u64
}

fn record_variant(attention: &Attention, gradients: &Gradients) -> RecordVariant {
    let value_dim = attention.shape.value_dim;
    let [.., dout] = gradients.strides(&attention.shape);
    RecordVariant {
        value_dim,
        out: attention.storage.out,
        dout: gradients.dout,
        aligned_out: attention.out_strides().is_aligned() && whole(value_dim),
        aligned_dout: dout.is_aligned() && whole(value_dim),
        behind: Some("norms"),
        chosen_heads: false,
    }
}

fn join_variant(attention: &Attention, gradients: &Gradients) -> JoinVariant {
    let head_dim = attention.shape.head_dim;
    let [dqk, ..] = gradients.strides(&attention.shape);
    JoinVariant {
        head_dim,
        input: attention.storage.q,
        aligned: attention.q_strides().is_aligned() && whole(head_dim),
        gradient: gradients.dq,
        aligned_gradient: dqk.is_aligned() && whole(head_dim),
    }
}

/// The merge of rows, of which there is one each, writes them in 16 bits.
fn narrow_variant(attention: &Attention, gradients: &Gradients) -> MergeVariant {
    let [_, _, dv, _] = gradients.strides(&attention.shape);
    MergeVariant {
        output: gradients.dkv,
        aligned_out: dv.is_aligned() && whole(attention.shape.value_dim),
        ..merge_variant(attention, true, false)
    }
}
