//! The kernels around attention for plain Rust users: slices in, `Vec`s out.

use super::{FeedForwardBuffers, MatmulBuffers, NormBuffers, RotaryBuffers};
use crate::construct::constructed;
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::gpu::call::Call;
use crate::gpu::memory::filled_buffer;
use crate::gpu::scope::allocated;
use crate::inputs::check_slice;
use crate::{
    AddShape, Combine, Element, EmbedShape, Error, FeedForwardShape, Layout, MatmulShape, NormShape, Result,
    RotaryShape, SoftmaxShape,
};

/// The tensors of a matrix product, lying as the [`MatmulShape`] says.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MatmulSlices<'a, I, W, O> {
    /// A `[batch, rows, inner]` or `[batch, inner, rows]`.
    pub a: &'a [I],
    /// B `[batch, inner, columns]` or `[batch, columns, inner]`.
    pub b: &'a [W],
    /// The bias `[columns]`, if and only if the shape has one.
    pub bias: Option<&'a [W]>,
    /// The residual, or what out holds before where that is [added to](Combine::AddInto) or
    /// [multiplied](Combine::MultiplyInto).
    pub other: Option<&'a [O]>,
}

constructed! {
    MatmulSlices ['a, I, W, O] { a: &'a [I], b: &'a [W] } { bias: &'a [W], other: &'a [O] }
}

/// The tensors of a feed-forward layer, as [`FeedForwardBuffers`] describes them.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FeedForwardSlices<'a, I, W, O> {
    /// x `[rows, model_dim]`.
    pub x: &'a [I],
    /// W1 `[model_dim, hidden_dim]` or its transpose.
    pub w1: &'a [W],
    /// b1 `[hidden_dim]`.
    pub b1: Option<&'a [W]>,
    /// W3, as W1, where gated.
    pub w3: Option<&'a [W]>,
    /// b3 `[hidden_dim]`, where gated.
    pub b3: Option<&'a [W]>,
    /// W2 `[hidden_dim, model_dim]` or its transpose.
    pub w2: &'a [W],
    /// b2 `[model_dim]`.
    pub b2: Option<&'a [W]>,
    /// The residual `[rows, model_dim]`.
    pub residual: Option<&'a [O]>,
}

constructed! {
    FeedForwardSlices ['a, I, W, O] { x: &'a [I], w1: &'a [W], w2: &'a [W] }
    { b1: &'a [W], w3: &'a [W], b3: &'a [W], b2: &'a [W], residual: &'a [O] }
}

/// Every function uploads, computes, waits and reads back; element types are those of the slices and of the `Vec`. Each has
/// an `_async` twin, for browsers and executors.
impl Gpu {
    /// A matrix product with all that its shape asks for. Gaps between rows of the result are 0.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length, missing or not asked for, and as
    /// [`Kernels::matmul`](crate::Kernels::matmul).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, MatmulShape, MatmulSlices};
    /// let slices = MatmulSlices::new(&[1.0f32, 2.0], &[3.0f32, 4.0]);
    /// let product: Vec<f32> = Gpu::new()?.matmul(&MatmulShape::new(1, 2, 1), slices)?;
    /// assert_eq!(product, [11.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn matmul<I: Element, W: Element, O: Element>(
        &self,
        shape: &MatmulShape,
        slices: MatmulSlices<'_, I, W, O>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.matmul_async(shape, slices))
    }

    /// [`Gpu::matmul`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::matmul`].
    pub async fn matmul_async<I: Element, W: Element, O: Element>(
        &self,
        shape: &MatmulShape,
        slices: MatmulSlices<'_, I, W, O>,
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        let plan = self.kernels_for(shape.flops())?.matmul(&shape)?;
        let a = self.slice("a", slices.a, shape.len_a(), shape.a_strides.is_some())?;
        let b = self.slice("b", slices.b, shape.len_b(), shape.b_strides.is_some())?;
        let bias = self.optional("bias", slices.bias, shape.bias, shape.columns, false)?;
        let into = matches!(shape.combine, Combine::AddInto | Combine::MultiplyInto);
        let (residual, before) = if into { (None, slices.other) } else { (slices.other, None) };
        let add = shape.combine == Combine::Add;
        let strided = shape.residual_strides.is_some();
        let residual = self.optional("other", residual, add, shape.len_residual(), strided)?;
        let strided = shape.out_strides.is_some();
        let before = self.before("other", before, into, shape.len_out(), strided)?;
        let bind = |out: &_| {
            plan.bind(MatmulBuffers {
                a: whole(&a),
                b: whole(&b),
                scales: None,
                zero_points: None,
                bias: bias.as_ref().map(whole),
                residual: residual.as_ref().map(whole),
                out: whole(out),
            })
        };
        self.layer(shape.len_out(), before, bind).await
    }

    /// A feed-forward layer, in chunks of rows.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::feed_forward`](crate::Kernels::feed_forward).
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, FeedForwardShape, FeedForwardSlices, Gpu};
    /// let shape = FeedForwardShape::new(512, 64, 256, Activation::GeluErf);
    /// let [x, w1, w2] = [shape.len_x(), shape.len_weight(), shape.len_weight()].map(|len| vec![0.1f32; len]);
    /// let y: Vec<f32> = Gpu::new()?.feed_forward(&shape, FeedForwardSlices::new(&x, &w1, &w2))?;
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn feed_forward<I: Element, W: Element, O: Element>(
        &self,
        shape: &FeedForwardShape,
        slices: FeedForwardSlices<'_, I, W, O>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.feed_forward_async(shape, slices))
    }

    /// [`Gpu::feed_forward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::feed_forward`].
    pub async fn feed_forward_async<I: Element, W: Element, O: Element>(
        &self,
        shape: &FeedForwardShape,
        slices: FeedForwardSlices<'_, I, W, O>,
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        let plan = self.kernels_for(shape.flops())?.feed_forward(&shape)?;
        let (len, weights, hidden) = (shape.len_x(), shape.len_weight(), shape.hidden_dim);
        let x = self.slice("x", slices.x, len, false)?;
        let w1 = self.slice("w1", slices.w1, weights, false)?;
        let b1 = self.optional("b1", slices.b1, shape.bias, hidden, false)?;
        let w3 = self.optional("w3", slices.w3, shape.gated, weights, false)?;
        let b3 = self.optional("b3", slices.b3, shape.gated && shape.bias, hidden, false)?;
        let w2 = self.slice("w2", slices.w2, weights, false)?;
        let b2 = self.optional("b2", slices.b2, shape.bias, shape.model_dim, false)?;
        let residual = self.optional("residual", slices.residual, shape.residual, len, false)?;
        let bind = |out: &_| {
            plan.bind(FeedForwardBuffers {
                x: whole(&x),
                w1: whole(&w1),
                b1: b1.as_ref().map(whole),
                w3: w3.as_ref().map(whole),
                b3: b3.as_ref().map(whole),
                w2: whole(&w2),
                b2: b2.as_ref().map(whole),
                residual: residual.as_ref().map(whole),
                out: whole(out),
                scratch: None,
            })
        };
        self.layer(len, None, bind).await
    }

    /// A layer norm or an RMS norm of x `[rows, width]`.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::norm`](crate::Kernels::norm).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, NormKind, NormShape};
    /// let shape = NormShape::new(NormKind::Layer, 1, 2, 1e-12);
    /// let y: Vec<f32> = Gpu::new()?.norm(&shape, &[1.0f32, 3.0], &[1.0f32, 2.0], None)?;
    /// assert!((y[0] + 1.0).abs() < 1e-6 && (y[1] - 2.0).abs() < 1e-6);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn norm<I: Element, W: Element, O: Element>(
        &self,
        shape: &NormShape,
        x: &[I],
        weight: &[W],
        bias: Option<&[W]>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.norm_async(shape, x, weight, bias))
    }

    /// [`Gpu::norm`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::norm`].
    pub async fn norm_async<I: Element, W: Element, O: Element>(
        &self,
        shape: &NormShape,
        x: &[I],
        weight: &[W],
        bias: Option<&[W]>,
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        let plan = self.kernels().norm(&shape)?;
        let x = self.slice("x", x, shape.len_x(), shape.x_row.is_some())?;
        let weight = self.slice("weight", weight, shape.width, false)?;
        let bias = self.optional("bias", bias, shape.bias, shape.width, false)?;
        let bind = |out: &_| {
            let bias = bias.as_ref().map(whole);
            plan.bind(NormBuffers { x: whole(&x), weight: whole(&weight), bias, out: whole(out) })
        };
        self.layer(shape.len_out(), None, bind).await
    }

    /// Softmax over the last axis of x `[rows, width]`.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::softmax`](crate::Kernels::softmax).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, SoftmaxShape};
    /// let y: Vec<f32> = Gpu::new()?.softmax(&SoftmaxShape::new(1, 2), &[7.0f32, 7.0])?;
    /// assert_eq!(y, [0.5, 0.5]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn softmax<I: Element, O: Element>(&self, shape: &SoftmaxShape, x: &[I]) -> Result<Vec<O>> {
        pollster::block_on(self.softmax_async(shape, x))
    }

    /// [`Gpu::softmax`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::softmax`].
    pub async fn softmax_async<I: Element, O: Element>(
        &self,
        shape: &SoftmaxShape,
        x: &[I],
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).output(O::TYPE);
        let plan = self.kernels().softmax(&shape)?;
        let x = self.slice("x", x, shape.len_x(), shape.x_row.is_some())?;
        self.layer(shape.len_out(), None, |out| plan.bind(whole(&x), whole(out))).await
    }

    /// x + other, or x - other, both `[rows, width]`: slices are never added to in place.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::add`](crate::Kernels::add).
    ///
    /// ```no_run
    /// use wgpu_attention::{AddShape, Gpu};
    /// let y: Vec<f32> = Gpu::new()?.add(&AddShape::new(1, 2), &[1.0f32, 2.0], &[10.0f32, 20.0])?;
    /// assert_eq!(y, [11.0, 22.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn add<I: Element, J: Element, O: Element>(
        &self,
        shape: &AddShape,
        x: &[I],
        other: &[J],
    ) -> Result<Vec<O>> {
        pollster::block_on(self.add_async(shape, x, other))
    }

    /// [`Gpu::add`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::add`].
    pub async fn add_async<I: Element, J: Element, O: Element>(
        &self,
        shape: &AddShape,
        x: &[I],
        other: &[J],
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).other(J::TYPE).output(O::TYPE).in_place(false);
        let plan = self.kernels().add(&shape)?;
        let x = self.slice("x", x, shape.len(), false)?;
        let other = self.slice("other", other, shape.len(), false)?;
        self.layer(shape.len(), None, |out| plan.bind(whole(&x), whole(&other), whole(out))).await
    }

    /// Rows of a table `[table_rows, width]`; `before` is what they are [added to](Combine::AddInto), if the shape says so.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::embed`](crate::Kernels::embed).
    ///
    /// ```no_run
    /// use wgpu_attention::{EmbedShape, Gpu};
    /// // 3 ids, a table of 2 rows of 1 element.
    /// let y: Vec<f32> = Gpu::new()?.embed(&EmbedShape::new(3, 2, 1), &[1, 0, 1], &[5.0f32, 6.0], None)?;
    /// assert_eq!(y, [6.0, 5.0, 6.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn embed<T: Element, O: Element>(
        &self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &[T],
        before: Option<&[O]>,
    ) -> Result<Vec<O>> {
        pollster::block_on(self.embed_async(shape, ids, table, before))
    }

    /// [`Gpu::embed`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::embed`].
    pub async fn embed_async<T: Element, O: Element>(
        &self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &[T],
        before: Option<&[O]>,
    ) -> Result<Vec<O>> {
        let shape = shape.table(T::TYPE).output(O::TYPE);
        let plan = self.kernels().embed(&shape)?;
        let ids = self.slice("ids", ids, shape.rows, false)?;
        let table = self.slice("table", table, shape.len_table(), false)?;
        let into = shape.combine == Combine::AddInto;
        let before = self.before("before", before, into, shape.len_out(), shape.out_row.is_some())?;
        self.layer(shape.len_out(), before, |out| plan.bind(whole(&ids), whole(&table), whole(out))).await
    }

    /// Rotary embedding of x `[B, H, L, d]`; [`rotary_tables`](crate::rotary_tables) makes cos and sin.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`Kernels::rotary`](crate::Kernels::rotary).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, RotaryShape, rotary_tables};
    /// let shape = RotaryShape::new(1, 8, 128, 64);
    /// let [cos, sin] = rotary_tables(128, 64, 10000.0);
    /// let x = vec![0.1f32; shape.len_x()];
    /// let turned: Vec<f32> = Gpu::new()?.rotary(&shape, &x, &cos, &sin)?;
    /// assert_eq!(turned.len(), x.len());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn rotary<I: Element, O: Element>(
        &self,
        shape: &RotaryShape,
        x: &[I],
        cos: &[f32],
        sin: &[f32],
    ) -> Result<Vec<O>> {
        pollster::block_on(self.rotary_async(shape, x, cos, sin))
    }

    /// [`Gpu::rotary`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::rotary`].
    pub async fn rotary_async<I: Element, O: Element>(
        &self,
        shape: &RotaryShape,
        x: &[I],
        cos: &[f32],
        sin: &[f32],
    ) -> Result<Vec<O>> {
        let shape = shape.input(I::TYPE).output(O::TYPE);
        let plan = self.kernels().rotary(&shape)?;
        let x = self.slice("x", x, shape.len_x(), matches!(shape.x_layout, Layout::Strided(_)))?;
        let [cos, sin] = [("cos", cos), ("sin", sin)]
            .map(|(name, table)| self.slice(name, table, shape.len_table(), false));
        let (cos, sin) = (cos?, sin?);
        let bind = |out: &_| {
            plan.bind(RotaryBuffers { x: whole(&x), cos: whole(&cos), sin: whole(&sin), out: whole(out) })
        };
        self.layer(shape.len_out(), None, bind).await
    }

    /// A slice on the device; a strided view may be followed by more.
    pub(super) fn slice<E: bytemuck::Pod>(
        &self,
        name: &'static str,
        data: &[E],
        need: usize,
        strided: bool,
    ) -> Result<wgpu::Buffer> {
        check_slice(name, data.len(), need, strided)?;
        self.upload(name, data, need)
    }

    /// One that is there if and only if it is wanted.
    pub(super) fn optional<E: bytemuck::Pod>(
        &self,
        name: &'static str,
        data: Option<&[E]>,
        wanted: bool,
        need: usize,
        strided: bool,
    ) -> Result<Option<wgpu::Buffer>> {
        check_wanted(name, data, wanted)?;
        data.map(|data| self.slice(name, data, need, strided)).transpose()
    }

    /// What an output holds before, to be copied there.
    pub(super) fn before<E: bytemuck::Pod>(
        &self,
        name: &'static str,
        data: Option<&[E]>,
        wanted: bool,
        need: usize,
        strided: bool,
    ) -> Result<Option<wgpu::Buffer>> {
        check_wanted(name, data, wanted)?;
        let Some(data) = data else { return Ok(None) };
        check_slice(name, data.len(), need, strided)?;
        let bytes: &[u8] = bytemuck::cast_slice(&data[..need]);
        let fill = || filled_buffer(self.device(), name, wgpu::BufferUsages::COPY_SRC, bytes);
        allocated(self.device(), name, bytes.len() as u64, fill).map(Some).map_err(|e| self.or_lost(e))
    }

    /// Binds and runs one call, and reads its output back.
    pub(super) async fn layer<O: Element>(
        &self,
        len: usize,
        before: Option<wgpu::Buffer>,
        bind: impl FnOnce(&wgpu::Buffer) -> Result<Call>,
    ) -> Result<Vec<O>> {
        self.check_alive()?;
        if len == 0 {
            return Ok(vec![]);
        }
        let out = self.output("out", len, O::TYPE)?;
        let call = bind(&out).map_err(|e| self.or_lost(e))?;
        let record = |encoder: &mut wgpu::CommandEncoder| {
            if let Some(before) = &before {
                encoder.copy_buffer_to_buffer(before, 0, &out, 0, before.size());
            }
            call.encode(encoder);
        };
        self.fetch(&[&out], record).await?.take(0, len)
    }
}

fn check_wanted<E>(name: &'static str, data: Option<&[E]>, wanted: bool) -> Result<()> {
    match (data, wanted) {
        (None, true) => Err(Error::argument(name, "a tensor, since the shape has one", "none")),
        (Some(_), false) => Err(Error::argument(name, "none, since the shape has none", "a tensor")),
        _ => Ok(()),
    }
}
