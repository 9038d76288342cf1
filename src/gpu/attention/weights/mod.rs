//! The weights of chosen rows: which keys a query attends, and how much.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`WeightsPlan`] |
//! | `bind.rs` | [`WeightsBuffers`] checked and bound to it |
//! | `host.rs` | slices in, `Vec`s out |

mod bind;
mod host;

pub use bind::WeightsBuffers;
pub use host::{AttentionWeights, RowSummary};

use super::AttentionPlan;
use super::tables::q_scale;
use crate::gpu::bindings::upload;
use crate::gpu::params::{Params, WeightsParams};
use crate::gpu::pipeline::{Pipeline, Work};
use crate::mask::Part;
use crate::wgsl::WeightsVariant;
use crate::{Error, KernelPath, Position, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// What is asked of the weights of rows.
///
/// ```
/// use wgpu_attention::WeightsOptions;
/// // Entropies and the 8 keys of the largest weights, in memory linear in the rows.
/// let options = WeightsOptions::default().matrix(false).top(8);
/// assert_eq!(options.summary, Some(8));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightsOptions {
    /// Whether every weight is wanted, `[N, Lk]` for N chosen rows.
    pub matrix: bool,
    /// Whether a summary per row is wanted, and how many keys it names: those of the largest weights, at most 24. `None`: no summary.
    pub summary: Option<usize>,
}

impl Default for WeightsOptions {
    /// The weights, and a summary with 4 keys.
    fn default() -> Self {
        Self { matrix: true, summary: Some(4) }
    }
}

impl WeightsOptions {
    /// Sets whether every weight is wanted.
    pub fn matrix(self, matrix: bool) -> Self {
        Self { matrix, ..self }
    }

    /// Asks for a summary that names this many keys.
    pub fn top(self, keys: usize) -> Self {
        Self { summary: Some(keys), ..self }
    }

    /// Asks for no summary.
    pub fn without_summary(self) -> Self {
        Self { summary: None, ..self }
    }
}

/// A plan for the weights p_ij = exp(score(i, j) - lse_i) of chosen rows (what BERTology looks at), made by [`AttentionPlan::weights`] from the plan whose
/// call left the state of the rows. Clones share it.
#[derive(Debug, Clone)]
pub struct WeightsPlan {
    forward: AttentionPlan,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rows: usize,
    options: WeightsOptions,
    /// One where a device has as many storage buffers as weights and summary take together, otherwise two.
    passes: Vec<Pass>,
}

/// What is computed by one walk over the parts.
#[derive(Debug)]
struct Pass {
    parts: Vec<PassPart>,
}

#[derive(Debug)]
struct PassPart {
    /// Which part of the mask.
    n: usize,
    pipeline: Arc<Pipeline>,
    chosen: wgpu::Buffer,
    params: Params,
    work: Work,
}

impl AttentionPlan {
    /// Plans the weights of these rows, in this order ([`Position::of_row`] names all there are); a row may come several times.
    ///
    /// # Errors
    /// [`Error::Argument`] for a row out of range or of a head that the plan does not compute, for options that ask for nothing or for more than 24 keys; [`Error::Limit`] where the device is too
    /// small; [`Error::Device`] for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Kernels, Position, WeightsOptions};
    /// fn plan(kernels: &Kernels) -> wgpu_attention::Result<wgpu_attention::WeightsPlan> {
    ///     let plan = kernels.attention(AttentionShape::new(1, 8, 1024, 64), &Causal)?;
    ///     // The last query of every head.
    ///     let rows: Vec<_> = (0..8).map(|head| Position { batch: 0, head, i: 1023 }).collect();
    ///     plan.weights(&rows, WeightsOptions::default())
    /// }
    /// ```
    pub fn weights(&self, rows: &[Position], options: WeightsOptions) -> Result<WeightsPlan> {
        let shape = &self.attention().shape;
        for (n, at) in rows.iter().enumerate() {
            for (name, index, len) in
                [("batch", at.batch, shape.batch), ("head", at.head, shape.heads), ("i", at.i, shape.q_len)]
            {
                if index >= len {
                    return Err(Error::argument(format!("rows[{n}].{name}"), format!("below {len}"), index));
                }
            }
            if !self.attention().heads.computes(at.head) {
                let need = "a head that the plan computes";
                return Err(Error::argument(format!("rows[{n}].head"), need, at.head));
            }
        }
        let WeightsOptions { matrix, summary } = options;
        if !matrix && summary.is_none() {
            return Err(Error::argument("options", "weights, a summary, or both", "neither"));
        }
        if summary.is_some_and(|top| top > WeightsVariant::MOST) {
            let need = format!("at most {} keys", WeightsVariant::MOST);
            return Err(Error::argument("options.summary", need, summary.unwrap_or(0)));
        }
        let elements = rows.len() as u128 * shape.kv_len as u128;
        if matrix && elements > u128::from(u32::MAX) {
            let need = format!("at most {} weights, of {} keys per row", u32::MAX, shape.kv_len);
            return Err(Error::argument("rows", need, elements));
        }
        let have = self.kernels.device().limits().max_storage_buffers_per_shader_stage as usize;
        let fits = |options| self.weights_variant(0, options).shader().bindings.len() <= have;
        let each = match (matrix, summary) {
            (true, Some(_)) if !fits(options) => vec![options.without_summary(), options.matrix(false)],
            _ => vec![options],
        };
        let passes = each.into_iter().map(|options| self.weights_pass(rows, options));
        let inner = Inner { rows: rows.len(), options, passes: passes.collect::<Result<_>>()? };
        Ok(WeightsPlan { forward: self.clone(), inner: Arc::new(inner) })
    }

    /// The shader of a part.
    fn weights_variant(&self, n: usize, options: WeightsOptions) -> WeightsVariant {
        let (attention, part) = (self.attention(), &self.inner.sets.parts()[n]);
        let whole = attention.shape.head_dim.is_multiple_of(4);
        WeightsVariant {
            head_dim: attention.shape.head_dim,
            q: attention.storage.q,
            kv: attention.storage.kv,
            aligned_q: attention.q_strides().is_aligned() && whole,
            aligned_k: attention.k_strides().is_aligned() && whole,
            block_q: part.mask.grid().block_q,
            block_k: part.mask.grid().block_k,
            q_order: part.q_order.is_some(),
            k_order: part.k_order.is_some(),
            score: attention.score.clone(),
            matrix: options.matrix,
            summary: options.summary,
            accumulate: n > 0,
            late_maxima: self.path().path == KernelPath::Cooperative,
        }
    }

    fn weights_pass(&self, rows: &[Position], options: WeightsOptions) -> Result<Pass> {
        let (attention, kernels) = (self.attention(), &self.kernels);
        let shape = &attention.shape;
        let mut parts = vec![];
        for (n, part) in self.inner.sets.parts().iter().enumerate() {
            let chosen = chosen_of(part, rows);
            let pipeline = kernels.pipeline(self.weights_variant(n, options).shader())?;
            let kernel = WeightsParams {
                tiles_per_split: u32::MAX,
                batch: shape.batch as u32,
                heads: shape.heads as u32,
                heads_per_kv_head: (shape.heads / shape.kv_heads) as u32,
                q_len: shape.q_len as u32,
                kv_len: shape.kv_len as u32,
                q_count: part.mask.grid().q_len as u32,
                k_count: part.mask.grid().kv_len as u32,
                q_scale: q_scale(attention, !attention.score.is_plain()),
                ..Default::default()
            };
            let params = Params::default()
                .with("kernel", kernel)
                .with("keep", self.inner.parts[n].keep)
                .with_rows(attention)
                .with_terms(attention);
            let flops = 2.0 * (shape.head_dim * part.mask.grid().kv_len.max(1)) as f64;
            let work = kernels.work("weights", chosen.len() as u128, flops)?;
            let chosen = upload(kernels.device(), "the chosen rows", bytemuck::cast_slice(&chosen))?;
            parts.push(PassPart { n, pipeline, chosen, params, work });
        }
        Ok(Pass { parts })
    }
}

/// The rows that a part has: batch item, head, place in the part, which of the chosen.
fn chosen_of(part: &Part, rows: &[Position]) -> Vec<[u32; 4]> {
    let places: Option<HashMap<u32, u32>> =
        part.q_order.as_ref().map(|order| order.iter().zip(0..).map(|(&i, place)| (i, place)).collect());
    let place = |i: usize| match &places {
        Some(places) => places.get(&(i as u32)).copied(),
        None => Some(i as u32),
    };
    let chosen = rows.iter().enumerate();
    chosen.filter_map(|(n, at)| Some([at.batch as u32, at.head as u32, place(at.i)?, n as u32])).collect()
}

impl WeightsPlan {
    /// The call whose weights these are.
    pub fn attention(&self) -> &crate::Attention {
        self.forward.attention()
    }

    /// What is computed.
    pub fn options(&self) -> WeightsOptions {
        self.inner.options
    }

    /// Elements of the weights, `[N, Lk]` of f32; 0 where they are not asked for.
    pub fn len_weights(&self) -> usize {
        if self.inner.options.matrix { self.inner.rows * self.attention().shape.kv_len } else { 0 }
    }

    /// 32-bit words of the summaries, `[N, 1 + top, 2]`; 0 where they are not asked for. Of a row: the entropy in nats (f32) and the number of
    /// keys; then per key its index and its weight (f32), the largest first, equal ones in the order of the keys; `u32::MAX` and 0
    /// where no key has a weight above 0.
    pub fn len_summaries(&self) -> usize {
        self.inner.options.summary.map_or(0, |top| 2 * (1 + top) * self.inner.rows)
    }
}
