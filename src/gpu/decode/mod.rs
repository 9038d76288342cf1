//! Decoding with a key cache: new keys and values appended, their queries attended, lengths and pages on the device.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`DecodePlan`]: the pipelines of a step, for every length |
//! | `cache.rs` | [`KvCache`]: the buffers, and what the host knows of them |
//! | `append.rs` | new rows into the cache, and the lengths raised |
//! | `attend.rs` | queries against the cache |
//! | `keys.rs` | how queries and keys are cut into workgroups |
//! | `packed.rs` | [`PackedPlan`]: packed sequences, whose keys are the caller's own |
//! | `small.rs` | small problems for the pipelines of either, which a judge compares with the reference |

mod append;
mod attend;
mod cache;
mod keys;
mod packed;
#[cfg(not(target_arch = "wasm32"))]
mod small;

pub use append::AppendBuffers;
pub use attend::{AttendBuffers, DecodeScratch};
pub use cache::KvCache;
pub use packed::{PackedBuffers, PackedPlan};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use small::PACKED;

use super::attention::merge_variant;
use super::call::Call;
use super::kernels::Kernels;
use super::pipeline::Pipeline;
use crate::decode::DecodeShape;
use crate::wgsl::{
    AppendTarget, AppendVariant, AttendedRows, CacheText, DecodeVariant, NewRows, RaiseVariant,
};
use crate::{Attention, ElementType, Error, Result, Strides};
use keys::{Cut, Sizes};
use std::sync::Arc;

/// A step of decoding, planned and compiled: one plan for every length up to the capacity, and for every cache of the same sizes (each layer of a
/// model has one). Made by [`Kernels::decode`]; clones share it.
#[derive(Debug, Clone)]
pub struct DecodePlan {
    kernels: Kernels,
    shape: DecodeShape,
    /// The step as attention of the new queries.
    attention: Attention,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    append_k: Arc<Pipeline>,
    /// None where values are a part of keys.
    append_v: Option<Arc<Pipeline>>,
    raise: Arc<Pipeline>,
    /// Queries turned, if they turn.
    turn_q: Option<Arc<Pipeline>>,
    decode: Arc<Pipeline>,
    merge: Arc<Pipeline>,
    cut: Cut,
}

impl Kernels {
    /// Plans a step of decoding: checks the shape, and compiles what is not compiled yet. The key cache itself is
    /// [`kv_cache`](Self::kv_cache).
    ///
    /// # Errors
    /// As [`DecodeShape::check`]; [`Error::Limit`] past the device's limits; [`Error::Device`] for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{AppendBuffers, AttendBuffers, CacheShape, DecodeShape, Kernels};
    /// # fn example(kernels: &Kernels, device: &wgpu::Device, queue: &wgpu::Queue, buffers: [&wgpu::Buffer; 4])
    /// # -> wgpu_attention::Result<()> {
    /// let mut cache = kernels.kv_cache(&CacheShape::new(1, 8, 8192, 128))?;
    /// let plan = kernels.decode(&DecodeShape::new(*cache.shape(), 32, 1))?; // compiles, once
    /// let [q, k, v, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let call = plan.bind(&cache, AppendBuffers::new(k, v), AttendBuffers::new(q, out))?; // once
    /// for _ in 0..100 {
    ///     // ... q, k and v of the next token ...
    ///     let mut encoder = device.create_command_encoder(&Default::default());
    ///     cache.extend(queue, &mut encoder, &[1])?;
    ///     call.encode(&mut encoder);
    ///     queue.submit([encoder.finish()]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn decode(&self, shape: &DecodeShape) -> Result<DecodePlan> {
        shape.check()?;
        self.decode_cut(shape, Sizes::from(shape).cut(self)?)
    }

    /// A step of a valid shape, cut in this way.
    fn decode_cut(&self, shape: &DecodeShape, cut: Cut) -> Result<DecodePlan> {
        let attention = shape.attention();
        let merge = merge_variant(&attention, true, shape.lse).shader();
        let own_values = shape.cache.value_start.is_none();
        let append_v = own_values.then(|| append_variant(shape, Rows::Values).shader());
        let turn_q = shape.rotary.map(|_| append_variant(shape, Rows::Queries).shader());
        let inner = Inner {
            append_k: self.pipeline(append_variant(shape, Rows::Keys).shader())?,
            append_v: append_v.map(|shader| self.pipeline(shader)).transpose()?,
            raise: self.pipeline(RaiseVariant { new: new_rows(shape) }.shader())?,
            turn_q: turn_q.map(|shader| self.pipeline(shader)).transpose()?,
            decode: self
                .pipeline(decode_variant(shape, cut.tile_rows / 4, self.computes_on_a_cpu()).shader())?,
            merge: self.pipeline(merge)?,
            cut,
        };
        Ok(DecodePlan { kernels: self.clone(), shape: *shape, attention, inner: Arc::new(inner) })
    }
}

/// Rows that are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Keys,
    Values,
    Queries,
}

fn new_rows(shape: &DecodeShape) -> NewRows {
    match (shape.packed, shape.counts) {
        (true, _) => NewRows::Packed,
        (false, true) => NewRows::Counted,
        (false, false) => NewRows::Same,
    }
}

fn cache_text(shape: &DecodeShape) -> CacheText {
    CacheText { page: shape.cache.paging.map(|paging| paging.page), new: new_rows(shape) }
}

fn decode_variant(shape: &DecodeShape, row_groups: usize, touches: bool) -> DecodeVariant {
    let cache = &shape.cache;
    let turned = shape.rotary.is_some();
    let q = shape.attention().q_strides();
    DecodeVariant {
        head_dim: cache.head_dim,
        value_dim: cache.value_dim,
        row_groups,
        q: if turned { ElementType::F32 } else { shape.input },
        aligned_q: turned || (q.is_aligned() && cache.head_dim.is_multiple_of(4)),
        storage: cache.storage,
        rows: cache.value_start.map_or(AttendedRows::Cached, AttendedRows::ValuesInKeys),
        cache: cache_text(shape),
        touches,
    }
}

impl Rows {
    /// Where they lie, how long they are, of how many heads.
    fn of(self, shape: &DecodeShape) -> (Strides, usize, usize) {
        let (rows, cache) = (shape.new_rows(), &shape.cache);
        match self {
            Self::Keys => (rows.k_strides(), cache.head_dim, cache.kv_heads),
            Self::Values => (rows.v_strides(), cache.value_dim, cache.kv_heads),
            Self::Queries => (rows.q_strides(), cache.head_dim, shape.heads),
        }
    }
}

fn append_variant(shape: &DecodeShape, rows: Rows) -> AppendVariant {
    let (strides, dim, _) = rows.of(shape);
    let is_query = rows == Rows::Queries;
    AppendVariant {
        dim,
        target: if is_query { AppendTarget::Queries } else { AppendTarget::Cache },
        rotary: shape.rotary.filter(|_| rows != Rows::Values),
        input: shape.input,
        aligned: strides.is_aligned() && dim.is_multiple_of(4),
        output: if is_query { ElementType::F32.into() } else { shape.cache.storage },
        cache: cache_text(shape),
    }
}

impl DecodePlan {
    /// The step as attention of the new queries.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The step that was planned.
    pub fn shape(&self) -> &DecodeShape {
        &self.shape
    }

    /// The most workgroups that share the keys of a row. Keys are dealt out to them in turn, by [`CHUNK`](DecodeVariant::CHUNK)s.
    pub fn splits(&self) -> usize {
        self.inner.cut.splits
    }

    /// A whole step, appended and attended: binds once, records for every token. Scratch is allocated for this call alone.
    ///
    /// # Errors
    /// As [`append`](Self::append) and [`attend`](Self::attend).
    pub fn bind(
        &self,
        cache: &KvCache,
        append: AppendBuffers<'_>,
        attend: AttendBuffers<'_>,
    ) -> Result<Call> {
        self.bind_with(cache, append, attend, &self.scratch()?)
    }

    /// [`bind`](Self::bind) with scratch that other calls use, too: those of a model's layers, which run one after the other.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Argument`] for scratch that is too small.
    pub fn bind_with(
        &self,
        cache: &KvCache,
        append: AppendBuffers<'_>,
        attend: AttendBuffers<'_>,
        scratch: &DecodeScratch,
    ) -> Result<Call> {
        let (append, attend) = (self.append(cache, append)?, self.attend_with(cache, attend, scratch)?);
        Ok(Call::in_turn("decode", [append], attend))
    }

    fn check_cache(&self, cache: &KvCache) -> Result<()> {
        match *cache.shape() == self.shape.cache {
            true => Ok(()),
            false => {
                let need = format!("one of the planned sizes, {:?}", self.shape.cache);
                Err(Error::argument("cache", need, format!("{:?}", cache.shape())))
            }
        }
    }
}
