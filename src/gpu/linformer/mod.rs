//! Linformer on the device: products along the sequence, then attention over what is left.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | [`LinformerPlan`]: the plans of its parts |
//! | `bind.rs` | [`LinformerBuffers`] checked and bound to a plan |
//! | `host.rs` | slices in, `Vec` out |
//! | `backward/` | gradients |

mod backward;
mod bind;
mod host;

pub use backward::{LinformerBackwardPlan, LinformerGradBuffers, LinformerGradients};
pub use bind::{LinformerBuffers, LinformerScratch};

use super::attention::AttentionPlan;
use super::kernels::Kernels;
use super::layer::MatmulPlan;
use super::pipeline::Pipeline;
use crate::linformer::LinformerOptions;
use crate::wgsl::{FeatureVariant, MapMode, MapText};
use crate::{
    AOrder, Attention, AttentionShape, ElementType, Error, Full, KernelPath, MatmulShape, Result, RowStrides,
    Strides,
};
use std::sync::Arc;

/// Linformer, planned and compiled: everything about a call that does not depend on the buffers. Made by
/// [`Kernels::linformer`]; clones share it.
#[derive(Debug, Clone)]
pub struct LinformerPlan {
    kernels: Kernels,
    attention: Attention,
    options: LinformerOptions,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Copies of k and of v in which masked rows are 0; where there is a key mask.
    seen: Option<[Arc<Pipeline>; 2]>,
    /// E^T K, and F^T V where that is another product.
    products: Vec<Product>,
    attend: AttentionPlan,
}

/// One projection: a product per batch item where one stride does not lead through batch and heads.
#[derive(Debug)]
struct Product {
    plans: Vec<MatmulPlan>,
}

impl Kernels {
    /// Plans Linformer over q `[B, H, Lq, d]`, k `[B, Hkv, Lk, d]` and v `[B, Hkv, Lk, dv]`: checks the options and the shape, and compiles what is
    /// not compiled yet. See [`LinformerOptions`] for what is computed. The projections and what they leave are f32 whatever the storage of the
    /// rest, and the projected keys are walked in one piece ([`Options::splits`](crate::Options::splits) does not count).
    ///
    /// # Errors
    /// As [`LinformerOptions::check`]; [`Error::Argument`] where the options force another kernel than the scalar one,
    /// [`Error::Limit`] where the device is too small, [`Error::Device`] for what wgpu reports.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Kernels, LinformerBuffers, LinformerOptions, Options};
    /// # fn example(device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 6])
    /// # -> wgpu_attention::Result<()> {
    /// let kernels = Kernels::new(device, Options::default())?;
    /// let plan = kernels.linformer(AttentionShape::new(1, 8, 4096, 64), LinformerOptions::new(4096, 256))?;
    /// let [q, k, v, e, f, out] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// let call = plan.bind(LinformerBuffers::new(q, k, e, out).v(v).f(f))?; // checks, allocates scratch, records nothing
    /// call.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn linformer(
        &self,
        attention: impl Into<Attention>,
        options: LinformerOptions,
    ) -> Result<LinformerPlan> {
        LinformerPlan::new(self, attention.into(), options)
    }
}

impl LinformerPlan {
    fn new(kernels: &Kernels, attention: Attention, options: LinformerOptions) -> Result<Self> {
        options.check(&attention)?;
        if let Some(path @ KernelPath::Cooperative) = kernels.options().path {
            let need = "the scalar path, or none forced: what Linformer attends is f32";
            return Err(Error::argument("path", need, path));
        }
        let mut products = vec![Product::new(kernels, &attention, &options, false)?];
        if !options.one_product() {
            products.push(Product::new(kernels, &attention, &options, true)?);
        }
        let copy = |values: bool| kernels.pipeline(copy_variant(&attention, values).shader());
        let seen = options.key_mask.then(|| Ok([copy(false)?, copy(options.values)?])).transpose()?;
        let whole = kernels.with_options(kernels.options().splits(1))?;
        let attend = whole.attention(options.attended(&attention), &Full)?;
        let inner = Arc::new(Inner { seen, products, attend });
        Ok(Self { kernels: kernels.clone(), attention, options, inner })
    }

    /// What was planned.
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The options.
    pub fn options(&self) -> &LinformerOptions {
        &self.options
    }

    /// Floating-point operations of a call, two per multiplication and addition: projections, then attention over their rows.
    pub fn flops(&self) -> f64 {
        let plans = self.inner.products.iter().flat_map(|product| &product.plans);
        plans.map(|plan| plan.shape().flops()).sum::<f64>() + self.inner.attend.explain().flops
    }
}

/// A copy of k or of v, f32 in rows of whole groups.
fn copy_variant(attention: &Attention, values: bool) -> FeatureVariant {
    let (strides, dim) = source(attention, values);
    FeatureVariant {
        head_dim: dim,
        features: 0,
        input: attention.storage.kv,
        aligned: strides.is_aligned() && dim.is_multiple_of(4),
        map: MapText::Identity,
        mode: MapMode::Elements,
        projected: false,
        key_mask: true,
        weights: false,
    }
}

/// Lines (a batch item's key head) that one product takes.
struct Run {
    /// The batch item of the first.
    batch: usize,
    lines: usize,
    /// From one to the next.
    stride: isize,
}

/// All lines of a tensor, in order, in as few products as its strides allow: one, or one per batch item. `per_head`: a product may not
/// go through several batch items, since its projections are those of heads.
fn lines(shape: &AttentionShape, strides: Strides, per_head: bool) -> Vec<Run> {
    let (batch, heads) = (shape.batch, shape.kv_heads);
    let in_line = strides.batch == heads as isize * strides.head;
    match batch {
        batch if heads == 1 => vec![Run { batch: 0, lines: batch, stride: strides.batch }],
        batch if !per_head && in_line => {
            vec![Run { batch: 0, lines: batch * heads, stride: strides.head }]
        }
        batch => (0..batch).map(|batch| Run { batch, lines: heads, stride: strides.head }).collect(),
    }
}

/// The rows of k or of v that are projected: where they lie, their type, their length. Copies without masked rows, where there is a mask.
fn seen(attention: &Attention, options: &LinformerOptions, values: bool) -> (Strides, ElementType, usize) {
    let (given, dim) = source(attention, values);
    let (heads, len) = (attention.shape.kv_heads as isize, attention.shape.kv_len as isize);
    let width = dim.next_multiple_of(4) as isize;
    match options.key_mask {
        true => (Strides::new(heads * len * width, len * width, width), ElementType::F32, dim),
        false => (given, attention.storage.kv, dim),
    }
}

/// Where the rows of k or of v lie, and their length.
fn source(attention: &Attention, values: bool) -> (Strides, usize) {
    match values {
        false => (attention.k_strides(), attention.shape.head_dim),
        true => (attention.v_strides(), attention.shape.value_dim),
    }
}

impl Product {
    /// Of E and k, or of F and v.
    fn new(
        kernels: &Kernels,
        attention: &Attention,
        options: &LinformerOptions,
        second: bool,
    ) -> Result<Self> {
        let shape = &attention.shape;
        let (strides, element, dim) = seen(attention, options, second && options.values);
        let heads = shape.kv_heads;
        let per_head = options.per_head && heads > 1;
        let rows = (options.projected * dim) as isize;
        let product = |batch: usize, first: usize, stride: isize| {
            let e_stride = if per_head { (options.rows * options.projected) as isize } else { 0 };
            let a = RowStrides::new(e_stride, options.projected as isize);
            let b = RowStrides::new(stride, strides.row).offset(strides.at(first, 0, 0));
            let out = RowStrides::new(rows, dim as isize).offset(first * heads * rows as usize);
            MatmulShape::new(options.projected, shape.kv_len, dim)
                .batch(batch)
                .a_order(AOrder::InnerRows)
                .weight(element)
                .a_strides(a)
                .b_strides(b)
                .out_strides(out)
        };
        let runs = lines(shape, strides, per_head).into_iter();
        let shapes: Vec<_> = runs.map(|run| product(run.lines, run.batch, run.stride)).collect();
        Ok(Self { plans: shapes.iter().map(|shape| kernels.matmul(shape)).collect::<Result<_>>()? })
    }
}
