//! Linear attention on the device: features, sums over chunks of keys, their scan, rows.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LinearPlan`]: shaders |
//! | `bind.rs` | [`LinearBuffers`] checked and bound to a plan |
//! | `features.rs`, `pass.rs` | rows of features; sums over chunks, their scan, rows |
//! | `backward/` | gradients |
//! | `host.rs` | slices in, `Vec` out |

mod backward;
mod bind;
mod features;
mod host;
mod pass;

pub use backward::{LinearBackwardPlan, LinearGradBuffers, LinearGradients};
pub use bind::LinearBuffers;
pub(super) use features::FeatureRows;

use super::bindings::upload;
use super::kernels::Kernels;
use super::options::Options;
use super::pipeline::Pipeline;
use crate::linear::LinearOptions;
use crate::wgsl::{FeatureVariant, KeyMaxima, LinearVariant, MapMode, MapText, RowEnd, TileKind};
use crate::{Attention, Error, FeatureMap, KernelPath, Result};
use pass::PassPipelines;
use std::sync::Arc;

/// Linear attention, planned and compiled: everything about a call that does not depend on the buffers. Made by
/// [`Kernels::linear_attention`]; clones share it.
#[derive(Debug, Clone)]
pub struct LinearPlan {
    kernels: Kernels,
    attention: Attention,
    options: LinearOptions,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Where the options give a seed.
    projection: Option<wgpu::Buffer>,
    /// ln of the decay, where keys have weights.
    decays: Option<wgpu::Buffer>,
    q_features: Arc<Pipeline>,
    k_features: Arc<Pipeline>,
    /// The largest y of all keys, and the features given it.
    later: Option<[Arc<Pipeline>; 2]>,
    variant: LinearVariant,
    pass: PassPipelines,
}

impl Kernels {
    /// Plans linear attention over q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]`, v `[B, Hkv, Lk, dv]`: checks the options and the shape, draws a seeded
    /// projection, and compiles what is not compiled yet. See [`LinearOptions`] for what is computed.
    ///
    /// # Errors
    /// As [`LinearOptions::check`]; [`Error::Argument`] where the options force another kernel than the scalar one,
    /// [`Error::Limit`] where the device is too small, [`Error::Device`] for what wgpu reports.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, FeatureMap, Kernels, LinearBuffers, LinearOptions, Options};
    /// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// let kernels = Kernels::new(device, Options::default())?;
    /// let options = LinearOptions::new(FeatureMap::favor(128)).causal(true);
    /// let plan = kernels.linear_attention(AttentionShape::new(1, 8, 65_536, 64), options)?;
    /// let [q, k, v, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let call = plan.bind(LinearBuffers::new(q, k, v, out))?; // checks, allocates scratch, records nothing
    /// call.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn linear_attention(
        &self,
        attention: impl Into<Attention>,
        options: LinearOptions,
    ) -> Result<LinearPlan> {
        LinearPlan::new(self, attention.into(), options)
    }
}

impl LinearPlan {
    fn new(kernels: &Kernels, attention: Attention, options: LinearOptions) -> Result<Self> {
        options.check(&attention)?;
        check_path(kernels.options())?;
        let (shape, storage) = (&attention.shape, attention.storage);
        let aligned = |strides: crate::Strides, dim: usize| strides.is_aligned() && dim.is_multiple_of(4);
        let features = |key, input, aligned| {
            kernels.pipeline(FeatureVariant::of(&options, shape.head_dim, key, input, aligned).shader())
        };
        let map = MapText::of(&options.map);
        let variant = LinearVariant {
            value_dim: shape.value_dim,
            input: storage.kv,
            output: storage.out,
            aligned_v: aligned(attention.v_strides(), shape.value_dim),
            aligned_out: aligned(attention.out_strides(), shape.value_dim),
            causal: options.causal,
            weighted: options.weighted(),
            by_column: matches!(options.map, FeatureMap::Softmax) && !options.causal,
            direct: kernels.scalar_tile_kind() == TileKind::Direct,
            state: options.state,
            end: RowEnd::Mean,
            mirrored: false,
        };
        let later = map.mode(true, options.causal) == MapMode::Later;
        let second = || -> Result<[Arc<Pipeline>; 2]> {
            let keys = KeyMaxima::keys(map, options.map.features(shape.head_dim));
            Ok([kernels.pipeline(KeyMaxima::maxima())?, kernels.pipeline(keys)?])
        };
        let upload = |what, values: Vec<f32>| upload(kernels.device(), what, bytemuck::cast_slice(&values));
        let decays = options.weighted().then(|| options.log_decays(shape.kv_heads));
        let inner = Inner {
            projection: options.seeded_projection(shape).map(|p| upload("projection", p)).transpose()?,
            decays: decays.map(|decays| upload("decays", decays)).transpose()?,
            q_features: features(false, storage.q, aligned(attention.q_strides(), shape.head_dim))?,
            k_features: features(true, storage.kv, aligned(attention.k_strides(), shape.head_dim))?,
            later: later.then(second).transpose()?,
            pass: PassPipelines::new(kernels, &variant)?,
            variant,
        };
        Ok(Self { kernels: kernels.clone(), attention, options, inner: Arc::new(inner) })
    }

    /// What was planned.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The options.
    pub fn options(&self) -> &LinearOptions {
        &self.options
    }

    /// m.
    fn features(&self) -> usize {
        self.options.map.features(self.attention.shape.head_dim)
    }

    /// Bytes of a call's scratch: features of queries and keys, the states of chunks, weights of keys.
    pub fn scratch_bytes(&self) -> u64 {
        bind::sizes(self).iter().map(|(_, bytes)| bytes).sum()
    }

    /// Floating-point operations of a call, two per multiplication and addition: projections, sums over chunks, products with them, and
    /// the pairs of queries and keys within a chunk.
    pub fn flops(&self) -> f64 {
        let shape = &self.attention.shape;
        let (m, dv) = (self.features() as f64, shape.value_dim as f64);
        let [queries, keys] = [shape.heads * shape.q_len, shape.kv_heads * shape.kv_len]
            .map(|rows| (shape.batch * rows) as f64);
        let projection = if self.options.map.source().is_some() { m * shape.head_dim as f64 } else { 0.0 };
        let chunk = if self.options.causal { LinearOptions::CHUNK as f64 } else { 0.0 };
        2.0 * ((queries + keys) * projection + keys * m * dv + queries * (m * dv + chunk * (m + dv)))
    }
}

fn check_path(options: &Options) -> Result<()> {
    match options.path {
        Some(path @ KernelPath::Cooperative) => {
            let need = "the scalar path, or none forced: linear attention has no other kernel";
            Err(Error::argument("path", need, path))
        }
        _ => Ok(()),
    }
}
