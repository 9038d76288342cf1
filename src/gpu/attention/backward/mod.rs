//! Gradients on the device: plan, bind, encode.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`BackwardPlan`]: its passes, compiled |
//! | `gradients.rs` | [`Gradients`]: how the gradients are stored and where they lie |
//! | `tables.rs` | one part of a pass: its mask, parameters, and how its work is cut |
//! | `path.rs` | which kernels compute the gradients, and why |
//! | `narrow.rs` | gradients in 16 bits, of which several parts add up |
//! | `tensors.rs` | the gradients of the tensors of the score's terms |
//! | `bind.rs` | [`AttentionGradBuffers`] checked and bound to a plan |
//! | `explain.rs` | [`BackwardExplanation`]: what a plan will do and what it costs |
//! | `small.rs` | a small problem for a plan's pipelines, which a judge compares with the reference |
//! | `host.rs` | slices in, `Vec`s out |

mod bind;
mod explain;
mod gradients;
mod host;
mod narrow;
mod path;
#[cfg(not(target_arch = "wasm32"))]
mod small;
mod tables;
mod tensors;

pub use bind::AttentionGradBuffers;
pub use explain::{BackwardExplanation, TensorExplanation};
pub use gradients::Gradients;
pub use host::AttentionGradients;
pub(in crate::gpu) use narrow::Narrow;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use small::SmallBackward;

use super::{AttentionPlan, PathChoice};
use crate::gpu::pipeline::Pipeline;
use crate::mask::{Part, Parts};
use crate::wgsl::{BackwardRows, BackwardVariant, RecordVariant, TileKind};
use crate::{Attention, ElementType, Error, KernelPath, Result};
use std::sync::{Arc, OnceLock};
use tables::PassPart;
use tensors::TensorPass;

/// The gradients of an attention call, compiled: three kernels, whatever the pattern. Made by [`AttentionPlan::backward`]; clones
/// share it.
///
/// The first kernel makes a record of 16 bytes per query; the second walks the mask of the forward pass, which it shares, by queries; the
/// third walks the transposed mask by keys. The gradient of a tensor of the score's terms is one more walk by queries, compiled when
/// it is first bound. No atomics: the same call gives the same bits.
#[derive(Debug, Clone)]
pub struct BackwardPlan {
    forward: AttentionPlan,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    gradients: Gradients,
    choice: PathChoice,
    records: Arc<Pipeline>,
    queries: Pass,
    /// Where one pass writes dk and dv, within the device's storage buffers; of one alone; of the other alone.
    keys: [Pass; 3],
    /// The last steps of dq, dk and dv, where parts add up elsewhere.
    narrow: [Option<Narrow>; 3],
    /// Of the tensors of the score's terms that a score has a derivative by.
    tensors: Vec<TensorPass>,
    explanation: BackwardExplanation,
}

/// A pass over all parts of a mask.
#[derive(Debug)]
struct Pass {
    variants: Vec<BackwardVariant>,
    parts: Arc<[PassPart]>,
    compiled: OnceLock<Vec<Arc<Pipeline>>>,
}

impl AttentionPlan {
    /// Plans the gradients of this call, by q, k, v and the tensors of the score's terms: those of q, k and v each stored and lying as its tensor does, from a gradient of out that is stored and lies as
    /// out does.
    ///
    /// # Errors
    /// As [`backward_with`](Self::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::wgpu::{Buffer, CommandEncoder, Device};
    /// use wgpu_attention::{AttentionBuffers, AttentionGradBuffers, AttentionShape, Causal, Kernels, Options};
    ///
    /// fn record(device: &Device, encoder: &mut CommandEncoder, buffers: [&Buffer; 9]) -> wgpu_attention::Result<()> {
    ///     let kernels = Kernels::new(device, Options::default())?;
    ///     let plan = kernels.attention(AttentionShape::new(1, 8, 1024, 64), &Causal)?;
    ///     let backward = plan.backward()?;
    ///     let [q, k, v, out, state, dout, dq, dk, dv] = buffers.map(Buffer::as_entire_buffer_binding);
    ///     let forward = AttentionBuffers::new(q.clone(), k.clone(), v.clone(), out.clone()).state(state.clone());
    ///     plan.bind(forward)?.encode(encoder);
    ///     let gradients = AttentionGradBuffers::new(q, k, v, out, state, dout).dq(dq).dk(dk).dv(dv);
    ///     backward.bind(gradients)?.encode(encoder);
    ///     Ok(())
    /// }
    /// ```
    pub fn backward(&self) -> Result<BackwardPlan> {
        self.backward_with(Gradients::of(self.attention()))
    }

    /// [`backward`](Self::backward), with gradients in types and places of their own.
    ///
    /// # Errors
    /// [`Error::Argument`] for rows wider than [`AttentionShape::MAX_DIM`](crate::AttentionShape::MAX_DIM), gradients that overlap, a part
    /// that has a key twice, and a forced [`Options::gradient_path`](crate::Options::gradient_path) that cannot compute them;
    /// [`Error::Limit`] where the device is too small (relative rows or segments beside another term
    /// with a tensor need 9 storage buffers per stage, one more than WebGPU promises); [`Error::Device`] for what wgpu reports while compiling.
    pub fn backward_with(&self, gradients: Gradients) -> Result<BackwardPlan> {
        self.backward_on(gradients, None)
    }

    /// The same on a path that is given, or chosen.
    fn backward_on(&self, gradients: Gradients, choice: Option<PathChoice>) -> Result<BackwardPlan> {
        let attention = self.attention();
        gradients.check(attention)?;
        if let Some(name) = attention.score.without_slope() {
            return Err(Error::argument("score", "terms whose derivative is known: `Custom::slope`", name));
        }
        let parts = &self.inner.sets;
        let transposed = parts.transpose()?;
        let choice = match choice {
            Some(choice) => choice,
            None => path::choose(self, &gradients, [parts, &transposed])?,
        };
        let kind = path::kind(self, choice.path)?;
        let several = parts.parts().len().max(transposed.parts().len());
        let sums = narrow::sums(&gradients, several > 1);
        let kernels = &self.kernels;
        let records = kernels.pipeline(record_variant(attention, &gradients).shader())?;
        let shared = self.inner.parts.iter().map(|part| (part.tables.clone(), part.keep)).collect();
        let queries = Pass::new(self, &sums, parts, (BackwardRows::Queries, kind), Some(shared))?;
        let both = BackwardRows::Keys { dk: true, dv: true };
        let both = Pass::new(self, &sums, &transposed, (both, kind), None)?;
        let one = |dk| both.of_rows(BackwardRows::Keys { dk, dv: !dk });
        let keys = [one(true), one(false)];
        let tensors = attention.score.tensors(&attention.shape).into_iter().filter_map(|tensor| {
            let gradient = attention.score.gradient(tensor.name, &attention.shape)?;
            Some(TensorPass::new(self, &gradients, parts, (tensor.name, tensor.len), gradient))
        });
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let narrow = narrow::steps(kernels, &attention.shape, &gradients, several > 1)?;
        let explanation = explain::explain(self, &transposed, [&queries, &both], &narrow, &tensors, &choice);
        let [dk, dv] = keys;
        let keys = [both, dk, dv];
        let inner = Inner { gradients, choice, records, queries, keys, narrow, tensors, explanation };
        let plan = BackwardPlan { forward: self.clone(), inner: Arc::new(inner) };
        // Compiling here, not in `bind`, keeps the cost where the caller expects it.
        for pass in plan.passes(true, true, true) {
            pass.compiled(self)?;
        }
        Ok(plan)
    }
}

impl BackwardPlan {
    /// The call whose gradients these are.
    pub fn attention(&self) -> &Attention {
        self.forward.attention()
    }

    /// How the gradients are stored and where they lie.
    pub fn gradients(&self) -> &Gradients {
        &self.inner.gradients
    }

    /// What the plan will do and what it costs.
    pub fn explain(&self) -> &BackwardExplanation {
        &self.inner.explanation
    }

    /// The kernels of dq, dk and dv, and why those.
    ///
    /// ```
    /// # fn main() -> Result<(), wgpu_attention::Error> {
    /// # let gpu = wgpu_attention::Gpu::new()?;
    /// use wgpu_attention::{AttentionShape, Causal, KernelPath};
    /// let backward = gpu.kernels().attention(AttentionShape::new(1, 1, 256, 64), &Causal)?.backward()?;
    /// // Tensors of f32 are for the ordinary units.
    /// assert_eq!(backward.path().path, KernelPath::Scalar);
    /// # Ok(())
    /// # }
    /// ```
    pub fn path(&self) -> &PathChoice {
        &self.inner.choice
    }

    /// The same gradients by the scalar kernels, behind the same forward pass, and why.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn on_scalar(&self, why: String) -> Result<Self> {
        let choice = PathChoice { path: KernelPath::Scalar, why };
        self.forward.backward_on(self.inner.gradients, Some(choice))
    }

    /// The names of the shaders that a call runs which asks for these of dq, dk and dv: see [`AttentionPlan::shaders`].
    pub fn shaders(&self, [dq, dk, dv]: [bool; 3]) -> Vec<String> {
        let records = record_variant(self.attention(), &self.inner.gradients).shader().label;
        let passes = self.passes(dq, dk, dv).into_iter().flat_map(|pass| &pass.variants);
        let narrow = self.inner.narrow.iter().zip([dq, dk, dv]).filter(|(_, wanted)| *wanted);
        let narrow = narrow.filter_map(|(last, _)| Some(last.as_ref()?.pipeline().label().into()));
        [records].into_iter().chain(passes.map(|it| it.shader().label)).chain(narrow).collect()
    }

    /// The passes that compute these gradients.
    fn passes(&self, dq: bool, dk: bool, dv: bool) -> Vec<&Pass> {
        let [both, only_dk, only_dv] = &self.inner.keys;
        let mut passes: Vec<_> = dq.then_some(&self.inner.queries).into_iter().collect();
        if dk && dv && both.fits(&self.forward) {
            passes.push(both);
        } else {
            passes.extend(dk.then_some(only_dk));
            passes.extend(dv.then_some(only_dv));
        }
        passes
    }
}

impl Pass {
    fn new(
        forward: &AttentionPlan,
        gradients: &Gradients,
        parts: &Parts,
        (rows, kind): (BackwardRows, TileKind),
        shared: Option<Vec<tables::Tables>>,
    ) -> Result<Self> {
        let attention = forward.attention();
        let variants = parts.parts().iter().enumerate();
        let variants = variants.map(|(n, part)| variant(forward, gradients, part, (rows, kind), n > 0));
        let variants = variants.collect::<Result<Vec<_>>>()?;
        let tables = match shared {
            Some(shared) => shared,
            None => {
                let upload = |part| super::tables::mask_tables(&forward.kernels, attention, part);
                parts.parts().iter().map(upload).collect::<Result<Vec<_>>>()?
            }
        };
        let each = parts.parts().iter().zip(&variants).zip(tables);
        let plan = |((part, variant), tables)| {
            PassPart::new(&forward.kernels, attention, gradients, part, variant, tables)
        };
        let parts = each.map(plan).collect::<Result<Vec<_>>>()?.into();
        Ok(Self { variants, parts, compiled: OnceLock::new() })
    }

    /// The same walk, for other gradients.
    fn of_rows(&self, rows: BackwardRows) -> Self {
        let variants = self.variants.iter().map(|variant| BackwardVariant { rows, ..variant.clone() });
        Self { variants: variants.collect(), parts: self.parts.clone(), compiled: OnceLock::new() }
    }

    /// Whether the device has as many storage buffers as the pass uses, and a lane as many registers.
    fn fits(&self, forward: &AttentionPlan) -> bool {
        let have = forward.kernels.device().limits().max_storage_buffers_per_shader_stage as usize;
        let fits = |it: &BackwardVariant| it.fits_registers() && it.shader().bindings.len() <= have;
        self.variants.iter().all(fits)
    }

    fn compiled(&self, forward: &AttentionPlan) -> Result<&[Arc<Pipeline>]> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(compiled);
        }
        let compile = |variant: &BackwardVariant| forward.kernels.pipeline(variant.shader());
        let compiled = self.variants.iter().map(compile).collect::<Result<Vec<_>>>()?;
        Ok(self.compiled.get_or_init(|| compiled))
    }
}

fn whole(dim: usize) -> bool {
    dim.is_multiple_of(4)
}

/// The shader of a part of a pass.
fn variant(
    forward: &AttentionPlan,
    gradients: &Gradients,
    part: &Part,
    (rows, kind): (BackwardRows, TileKind),
    accumulate: bool,
) -> Result<BackwardVariant> {
    let attention = forward.attention();
    let (shape, storage, grid) = (&attention.shape, attention.storage, part.mask.grid());
    let aligned_keys = attention.k_strides().is_aligned() && whole(shape.head_dim);
    let aligned_values = attention.v_strides().is_aligned() && whole(shape.value_dim);
    let [dq, dk, dv, dout] = gradients.strides(shape).map(|strides| strides.is_aligned());
    let (gradient, aligned_gradient) = match rows {
        BackwardRows::Queries => (gradients.dq, dq && whole(shape.head_dim)),
        BackwardRows::Tensor(_) => (ElementType::F32, true),
        BackwardRows::Keys { .. } => {
            (gradients.dkv, dk && dv && whole(shape.head_dim) && whole(shape.value_dim))
        }
    };
    Ok(BackwardVariant {
        rows,
        tile: tables::tile(&forward.kernels, attention, part, rows, kind)?,
        head_dim: shape.head_dim,
        value_dim: shape.value_dim,
        q: storage.q,
        kv: storage.kv,
        dout: gradients.dout,
        gradient,
        aligned_q: attention.q_strides().is_aligned() && whole(shape.head_dim),
        aligned_kv: aligned_keys && aligned_values,
        aligned_dout: dout && whole(shape.value_dim),
        aligned_gradient,
        block_q: grid.block_q,
        block_k: grid.block_k,
        q_order: part.q_order.is_some(),
        k_order: part.k_order.is_some(),
        chosen_heads: attention.heads.chosen().is_some(),
        score: attention.score.clone(),
        accumulate,
        late_maxima: forward.path().path == KernelPath::Cooperative,
        chunks: None,
    })
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
        behind: (relative_biases(attention) > 0).then_some("relative_biases"),
        chosen_heads: attention.heads.chosen().is_some(),
    }
}

/// Elements of u and w, which lie behind the records.
fn relative_biases(attention: &Attention) -> usize {
    let tensors = attention.score.tensors(&attention.shape);
    tensors.iter().find(|tensor| tensor.name == "relative_biases").map_or(0, |tensor| tensor.len)
}

/// Bytes of the records of a call.
fn record_bytes(attention: &Attention) -> u64 {
    16 * (attention.shape.len_lse() + relative_biases(attention).div_ceil(4)) as u64
}
