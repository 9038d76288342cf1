//! New keys and values into the cache, and the lengths raised.

use super::keys::Sizes;
use super::{DecodePlan, KvCache, Rows, append_variant};
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding, whole};
use crate::gpu::call::Call;
use crate::gpu::params::{AppendParams, Params, RaiseParams};
use crate::gpu::pipeline::{Pipeline, Step};
use crate::wgsl::RaiseVariant;
use crate::{ElementType, Result};

/// The buffers that are appended. All need `BufferUsages::STORAGE`. Offsets and sizes are as for
/// [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppendBuffers<'a> {
    /// New keys `[B, Hkv, new, d]`.
    pub k: wgpu::BufferBinding<'a>,
    /// New values `[B, Hkv, new, dv]`; none where they are [a part of keys](crate::CacheShape::values_in_keys).
    pub v: Option<wgpu::BufferBinding<'a>>,
    /// cos in f32, `[capacity, r/2]`, if and only if keys turn.
    pub cos: Option<wgpu::BufferBinding<'a>>,
    /// sin, as cos.
    pub sin: Option<wgpu::BufferBinding<'a>>,
    /// How many of the new positions each sequence has, `[B]` in u32, if and only if the shape has [`counts`](crate::DecodeShape::counts).
    pub counts: Option<wgpu::BufferBinding<'a>>,
    /// Where each sequence's rows begin, and where the last ones end, `[B + 1]` in u32, if and only if the shape is
    /// [`packed`](crate::DecodeShape::packed).
    pub offsets: Option<wgpu::BufferBinding<'a>>,
}

impl<'a> AppendBuffers<'a> {
    /// New keys, and new values unless they are a part of keys; the rest is not given.
    pub fn new(k: wgpu::BufferBinding<'a>, v: impl Into<Given<'a>>) -> Self {
        Self { k, v: v.into(), cos: None, sin: None, counts: None, offsets: None }
    }

    /// Sets `k`.
    pub fn k(mut self, k: wgpu::BufferBinding<'a>) -> Self {
        self.k = k;
        self
    }
}

macro_rules! setters {
    ($($name:ident),*) => {
        impl<'a> AppendBuffers<'a> {
            $(#[doc = concat!("Sets `", stringify!($name), "`.")]
            pub fn $name(mut self, $name: impl Into<Given<'a>>) -> Self {
                self.$name = $name.into();
                self
            })*
        }
    };
}
setters! { v, cos, sin, counts, offsets }

type Given<'a> = Option<wgpu::BufferBinding<'a>>;

/// What a step of any rows reads beside them, checked.
#[derive(Debug, Clone)]
pub(super) struct Beside<'a> {
    pub(super) cos: Option<wgpu::BufferBinding<'a>>,
    pub(super) sin: Option<wgpu::BufferBinding<'a>>,
    pub(super) counts: Option<wgpu::BufferBinding<'a>>,
    pub(super) offsets: Option<wgpu::BufferBinding<'a>>,
}

impl DecodePlan {
    /// Checks the buffers of new keys and values and binds them: the call writes them into the cache, each at its sequence's own length, and raises the
    /// lengths. Nothing is recorded yet.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a cache of other sizes, a buffer that is too small, missing, not asked for, lacks the usage, is
    /// misaligned, or is one of the cache's; [`Error::Limit`](crate::Error::Limit) for a buffer past the device's binding size;
    /// [`Error::Device`](crate::Error::Device) for what wgpu reports.
    pub fn append(&self, cache: &KvCache, buffers: AppendBuffers<'_>) -> Result<Call> {
        self.check_cache(cache)?;
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let k = checked_binding(&limits, "k", &buffers.k, shape.len_k(), shape.input)?;
        let own_values = shape.cache.value_start.is_none();
        let v = optional_binding(&limits, "v", &buffers.v, own_values, shape.len_v(), shape.input)?;
        let beside = self.beside(&buffers.cos, &buffers.sin, &buffers.counts, &buffers.offsets)?;
        let CacheBindings { keys, values, lengths } = cache_bindings(cache);
        let named = [
            ("k", Some(&k), Access::Read),
            ("v", v.as_ref(), Access::Read),
            ("cos", beside.cos.as_ref(), Access::Read),
            ("sin", beside.sin.as_ref(), Access::Read),
            ("counts", beside.counts.as_ref(), Access::Read),
            ("offsets", beside.offsets.as_ref(), Access::Read),
            ("the cache's keys", Some(&keys), Access::Write),
            ("the cache's values", values.as_ref(), Access::Write),
            ("the cache's lengths", Some(&lengths), Access::Both),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let inner = &self.inner;
        let mut steps = vec![self.row_step(&inner.append_k, Rows::Keys, cache, k, keys, &beside)?];
        if let (Some(pipeline), Some(v), Some(values)) = (&inner.append_v, v, values) {
            steps.push(self.row_step(pipeline, Rows::Values, cache, v, values, &beside)?);
        }
        steps.push(self.raise_step(cache, &beside)?);
        Ok(Call::of_steps("append", steps))
    }

    /// Tables, counts and offsets, there if and only if the shape has them.
    pub(super) fn beside<'a>(
        &self,
        cos: &Given<'a>,
        sin: &Given<'a>,
        counts: &Given<'a>,
        offsets: &Given<'a>,
    ) -> Result<Beside<'a>> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let (turns, table, word) = (shape.rotary.is_some(), shape.len_table(), ElementType::F32);
        Ok(Beside {
            cos: optional_binding(&limits, "cos", cos, turns, table, word)?,
            sin: optional_binding(&limits, "sin", sin, turns, table, word)?,
            counts: optional_binding(&limits, "counts", counts, shape.counts, shape.cache.batch, word)?,
            offsets: optional_binding(
                &limits,
                "offsets",
                offsets,
                shape.packed,
                shape.cache.batch + 1,
                word,
            )?,
        })
    }

    /// Rows to where they belong.
    pub(super) fn row_step(
        &self,
        pipeline: &Pipeline,
        rows: Rows,
        cache: &KvCache,
        from: wgpu::BufferBinding<'_>,
        to: wgpu::BufferBinding<'_>,
        beside: &Beside<'_>,
    ) -> Result<Step> {
        let (strides, _, heads) = rows.of(&self.shape);
        let count = self.shape.row_batch() * heads * self.shape.new;
        let kernel = AppendParams { rows: count as u32, heads: heads as u32, ..Default::default() };
        let params = Params::default()
            .with("kernel", kernel)
            .with("cache", Sizes::from(&self.shape).cache_params())
            .with("x", crate::uniform::Rows::from(strides));
        let items = append_variant(&self.shape, rows).workgroups(count);
        let work = self.kernels.work("the new rows", items, 1024.0)?;
        let bindings = with_cache(cache, beside)
            .with_some("cosines", beside.cos.clone())
            .with_some("sines", beside.sin.clone())
            .with("x", from)
            .with("out", to);
        Step::new(self.kernels.device(), pipeline, &params, work, &bindings)
    }

    fn raise_step(&self, cache: &KvCache, beside: &Beside<'_>) -> Result<Step> {
        let batch = self.shape.cache.batch;
        let kernel = RaiseParams { batch: batch as u32, ..Default::default() };
        let params =
            Params::default().with("kernel", kernel).with("cache", Sizes::from(&self.shape).cache_params());
        let work = self.kernels.work("the lengths", batch.div_ceil(RaiseVariant::LANES) as u128, 64.0)?;
        Step::new(self.kernels.device(), &self.inner.raise, &params, work, &with_cache(cache, beside))
    }
}

/// Whole buffers of a cache.
pub(super) struct CacheBindings<'a> {
    pub(super) keys: wgpu::BufferBinding<'a>,
    /// None where they are a part of keys.
    pub(super) values: Given<'a>,
    pub(super) lengths: wgpu::BufferBinding<'a>,
}

pub(super) fn cache_bindings(cache: &KvCache) -> CacheBindings<'_> {
    let buffers = cache.buffers();
    CacheBindings {
        keys: whole(&buffers.keys),
        values: buffers.values.as_ref().map(whole),
        lengths: whole(&buffers.lengths),
    }
}

/// What says where a sequence's rows are.
pub(super) fn with_cache<'a>(cache: &'a KvCache, beside: &Beside<'a>) -> Bindings<'a> {
    let buffers = cache.buffers();
    Bindings::default()
        .with("lengths", whole(&buffers.lengths))
        .with_some("pages", buffers.pages.as_ref().map(whole))
        .with_some("counts", beside.counts.clone())
        .with_some("offsets", beside.offsets.clone())
}
