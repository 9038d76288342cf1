//! Gradients of linear attention on the device: plan, bind, encode.
//!
//! With (a_i, -D_i) = (do_i / l_i, -do_i . o_i / l_i) of a query and (v_j, 1) of a key, each gradient is a sum over pairs as the forward pass has
//! them, without a denominator:
//!
//! ```text
//! dphi(q_i) = sum_j w_ij [(a_i, -D_i) . (v_j, 1)] phi(k_j)      dphi(k_j) = sum_i w_ij [(a_i, -D_i) . (v_j, 1)] phi(q_i)
//! dv_j      = sum_i w_ij [phi(k_j) . phi(q_i)] a_i              w_ij: what a weight has beside the product of its features
//! ```
//!
//! So the kernels of the forward pass compute them, with other tensors as features and values: by queries, and by keys from the sequence's end.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LinearBackwardPlan`]: its passes, compiled |
//! | `bind.rs` | [`LinearGradBuffers`], checked and bound to a plan |
//! | `steps.rs` | the dispatches of a bound call |
//! | `host.rs` | slices in, `Vec`s out |

mod bind;
mod host;
mod steps;

pub use bind::LinearGradBuffers;
pub use host::LinearGradients;

use super::LinearPlan;
use super::pass::PassPipelines;
use crate::gpu::attention::Gradients;
use crate::gpu::bindings::upload;
use crate::gpu::pipeline::Pipeline;
use crate::layout::check_u32;
use crate::linear::{LinearOptions, LinearState};
use crate::wgsl::{FeatureGradient, LinearVariant, LinearVectors, MapText, RowEnd, SoftmaxColumns};
use crate::{Attention, ElementType, Error, Result, Strides};
use std::sync::Arc;

const LABEL: &str = "linear attention backward";

/// The gradients of linear attention, planned and compiled. Made by [`LinearPlan::backward`]; clones share it.
///
/// Features, states and rows are computed again: a call keeps nothing for it. Time and memory are linear in the lengths. No atomics: the same call
/// gives the same bits.
#[derive(Debug, Clone)]
pub struct LinearBackwardPlan {
    forward: LinearPlan,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    gradients: Gradients,
    /// ln of the decay of each query head, where keys have weights.
    decays: Option<wgpu::Buffer>,
    /// The forward pass, which leaves its rows in f32.
    rows: PassPipelines,
    /// Vectors of queries, of keys.
    vectors: [Arc<Pipeline>; 2],
    /// The sums of features of queries, of features of keys, of values.
    sums: [PassPipelines; 3],
    /// From features to queries, to keys; values.
    back: [Arc<Pipeline>; 3],
    softmax: Option<OverKeys>,
}

/// What a softmax of keys over all keys needs beside.
#[derive(Debug)]
struct OverKeys {
    /// Features become shares.
    shares: Arc<Pipeline>,
    /// Sums over keys of features alone.
    sums: PassPipelines,
    gradient: Arc<Pipeline>,
}

impl LinearPlan {
    /// Plans the gradients of this call by q, k and v, each stored and lying as its tensor does, from a gradient of out that is stored and lies as
    /// out does. The stabiliser of FAVOR+ and the projection are constants.
    ///
    /// # Errors
    /// As [`backward_with`](Self::backward_with).
    ///
    /// ```no_run
    /// use wgpu_attention::wgpu::{Buffer, CommandEncoder, Device};
    /// use wgpu_attention::{AttentionShape, FeatureMap, Kernels, LinearGradBuffers, LinearOptions, Options};
    ///
    /// fn record(device: &Device, encoder: &mut CommandEncoder, buffers: [&Buffer; 7]) -> wgpu_attention::Result<()> {
    ///     let kernels = Kernels::new(device, Options::default())?;
    ///     let options = LinearOptions::new(FeatureMap::favor(128)).causal(true);
    ///     let backward = kernels.linear_attention(AttentionShape::new(1, 8, 16_384, 64), options)?.backward()?;
    ///     let [q, k, v, dout, dq, dk, dv] = buffers.map(Buffer::as_entire_buffer_binding);
    ///     backward.bind(LinearGradBuffers::new(q, k, v, dout).dq(dq).dk(dk).dv(dv))?.encode(encoder);
    ///     Ok(())
    /// }
    /// ```
    pub fn backward(&self) -> Result<LinearBackwardPlan> {
        self.backward_with(Gradients::of(&self.attention))
    }

    /// [`backward`](Self::backward), with gradients in types and places of their own.
    ///
    /// # Errors
    /// [`Error::Argument`] for gradients that overlap, and where the call has a [`LinearState`]; [`Error::Limit`] where an index would pass 32 bits or
    /// the device is too small; [`Error::Device`] for what wgpu reports while compiling.
    pub fn backward_with(&self, gradients: Gradients) -> Result<LinearBackwardPlan> {
        gradients.check(&self.attention)?;
        self.check_backward()?;
        let (kernels, shape) = (&self.kernels, &self.attention.shape);
        let variants = self.sum_variants();
        let sums = variants.map(|variant| PassPipelines::new(kernels, &variant));
        let [dq, dk, dv] = sums;
        let [queries, keys] =
            self.vector_variants(&gradients).map(|variant| kernels.pipeline(variant.shader()));
        let [back_q, back_k, back_v] =
            self.gradient_variants(&gradients).map(|variant| kernels.pipeline(variant.shader()));
        let logs = self.options.weighted().then(|| {
            let of_head = self.options.log_decays(shape.kv_heads);
            let logs: Vec<f32> = (0..shape.heads).map(|head| of_head[shape.kv_head(head)]).collect();
            upload(kernels.device(), "decays", bytemuck::cast_slice(&logs))
        });
        let rows = LinearVariant {
            output: ElementType::F32,
            aligned_out: true,
            end: RowEnd::MeanAndRow,
            by_column: false,
            ..self.inner.variant
        };
        let inner = Inner {
            gradients,
            decays: logs.transpose()?,
            rows: PassPipelines::new(kernels, &rows)?,
            vectors: [queries?, keys?],
            sums: [dq?, dk?, dv?],
            back: [back_q?, back_k?, back_v?],
            softmax: self.inner.variant.by_column.then(|| self.over_keys(&gradients)).transpose()?,
        };
        Ok(LinearBackwardPlan { forward: self.clone(), inner: Arc::new(inner) })
    }

    fn check_backward(&self) -> Result<()> {
        let (shape, options) = (&self.attention.shape, &self.options);
        if options.state != LinearState::Absent {
            let need = "none in a call of which gradients are asked";
            return Err(Error::argument("state", need, format!("{:?}", options.state)));
        }
        let chunks = |len: usize| len.div_ceil(LinearOptions::CHUNK).max(1) as u128;
        let (features, vector) = (self.features(), shape.value_dim + 1);
        let by_queries = (shape.batch * shape.heads) as u128 * chunks(shape.q_len);
        let by_keys = (shape.batch * shape.kv_heads) as u128 * chunks(shape.kv_len);
        let larger =
            LinearOptions::len_sums(vector, features).max(LinearOptions::len_sums(features, shape.value_dim));
        check_u32("states of gradients", by_queries.max(by_keys) * larger as u128)?;
        let width = features.max(shape.value_dim).next_multiple_of(4) + 4;
        let rows = (shape.batch * shape.heads * shape.q_len).max(shape.batch * shape.kv_heads * shape.kv_len);
        check_u32("gradients of features", rows as u128 * width as u128)
    }

    /// Shares, their sums, the gradient.
    fn over_keys(&self, gradients: &Gradients) -> Result<OverKeys> {
        let (kernels, shape) = (&self.kernels, &self.attention.shape);
        let [_, dk, ..] = gradients.strides(shape);
        let gradient = SoftmaxColumns::Gradient(shape.head_dim, gradients.dkv, aligned(dk, shape.head_dim));
        let [sums, ..] = self.sum_variants();
        Ok(OverKeys {
            shares: kernels.pipeline(SoftmaxColumns::Shares.shader())?,
            // One column, which nothing reads.
            sums: PassPipelines::new(kernels, &LinearVariant { value_dim: 1, weighted: false, ..sums })?,
            gradient: kernels.pipeline(gradient.shader())?,
        })
    }

    /// The sums of features of queries, of features of keys, of values.
    fn sum_variants(&self) -> [LinearVariant; 3] {
        let queries = LinearVariant {
            value_dim: self.features(),
            input: ElementType::F32,
            output: ElementType::F32,
            aligned_v: true,
            aligned_out: true,
            end: RowEnd::Sums,
            by_column: false,
            ..self.inner.variant
        };
        let keys = LinearVariant { mirrored: self.options.causal, ..queries };
        [queries, keys, LinearVariant { value_dim: self.attention.shape.value_dim, ..keys }]
    }

    /// Vectors of queries, of keys.
    fn vector_variants(&self, gradients: &Gradients) -> [LinearVectors; 2] {
        let (attention, shape) = (&self.attention, &self.attention.shape);
        let [.., dout] = gradients.strides(shape);
        let queries = LinearVectors {
            value_dim: shape.value_dim,
            input: gradients.dout,
            aligned: aligned(dout, shape.value_dim),
            queries: true,
            key_mask: false,
            logs: self.options.weighted(),
        };
        let keys = LinearVectors {
            input: attention.storage.kv,
            aligned: aligned(attention.v_strides(), shape.value_dim),
            queries: false,
            key_mask: self.options.key_mask,
            logs: false,
            ..queries
        };
        [queries, keys]
    }

    /// From features to queries, to keys; values.
    fn gradient_variants(&self, gradients: &Gradients) -> [FeatureGradient; 3] {
        let (attention, shape) = (&self.attention, &self.attention.shape);
        let [dq, dk, dv, _] = gradients.strides(shape);
        let (map, over_keys) = (MapText::of(&self.options.map), self.inner.variant.by_column);
        let queries = FeatureGradient {
            head_dim: shape.head_dim,
            features: if map == MapText::FavorGlobal { self.features() } else { 0 },
            input: attention.storage.q,
            output: gradients.dq,
            aligned_x: aligned(attention.q_strides(), shape.head_dim),
            aligned_out: aligned(dq, shape.head_dim),
            map: Some(map),
            weighted: false,
        };
        let keys = FeatureGradient {
            input: attention.storage.kv,
            // Products of shares and their gradients, to be added up.
            output: if over_keys { ElementType::F32 } else { gradients.dkv },
            aligned_x: aligned(attention.k_strides(), shape.head_dim),
            aligned_out: over_keys || aligned(dk, shape.head_dim),
            weighted: self.options.weighted(),
            ..queries
        };
        let values = FeatureGradient {
            head_dim: shape.value_dim,
            features: 0,
            output: gradients.dkv,
            aligned_out: aligned(dv, shape.value_dim),
            map: None,
            ..keys
        };
        [queries, keys, values]
    }
}

fn aligned(strides: Strides, dim: usize) -> bool {
    strides.is_aligned() && dim.is_multiple_of(4)
}

impl LinearBackwardPlan {
    /// What the gradients are of.
    pub fn attention(&self) -> &Attention {
        &self.forward.attention
    }

    /// How the gradients are stored, and where they lie.
    pub fn gradients(&self) -> &Gradients {
        &self.inner.gradients
    }

    /// Floating-point operations of a call for all three gradients, two per multiplication and addition: the forward pass once more, three sums
    /// like it, and the projections.
    pub fn flops(&self) -> f64 {
        let (plan, shape) = (&self.forward, &self.forward.attention.shape);
        let (m, dv, d) = (plan.features() as f64, shape.value_dim as f64, shape.head_dim as f64);
        let [queries, keys] = [shape.heads * shape.q_len, shape.kv_heads * shape.kv_len]
            .map(|rows| (shape.batch * rows) as f64);
        let projection = if plan.options.map.source().is_some() { m * d } else { 0.0 };
        let chunk = if plan.options.causal { LinearOptions::CHUNK as f64 } else { 0.0 };
        let group = (shape.heads / shape.kv_heads) as f64;
        let by_queries = keys * m * dv + queries * (m * dv + chunk * (m + dv));
        let by_keys = queries * m * dv + group * keys * (m * dv + chunk * (m + dv));
        plan.flops() + 2.0 * (by_queries + 2.0 * by_keys + (queries + keys) * projection)
    }

    /// Bytes of a call's scratch for all three gradients.
    pub fn scratch_bytes(&self) -> u64 {
        self.forward.scratch_bytes() + steps::sizes(self).iter().map(|(_, bytes)| bytes).sum::<u64>()
    }
}
