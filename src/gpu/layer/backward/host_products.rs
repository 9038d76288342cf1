//! Gradients of products for plain Rust users: slices in, `Vec`s out.

use super::{FeedForwardGradBuffers, MatmulGradBuffers};
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::gpu::layer::host::{FeedForwardSlices, MatmulSlices};
use crate::{Element, ElementType, Error, FeedForwardShape, MatmulShape, Result};

/// What [`Gpu::matmul_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MatmulGradients {
    /// The gradient by A, in its order, without gaps; of one batch item where all share it.
    pub da: Vec<f32>,
    /// The gradient by B, in its order, without gaps; of one batch item where all share it.
    pub db: Vec<f32>,
    /// The gradient by the bias `[columns]`, if there is one.
    pub dbias: Option<Vec<f32>>,
}

/// What [`Gpu::feed_forward_backward`] returns, each gradient in the order of its tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FeedForwardGradients {
    /// The gradient by x `[rows, model_dim]`.
    pub dx: Vec<f32>,
    /// The gradient by W1.
    pub dw1: Vec<f32>,
    /// The gradient by b1 `[hidden_dim]`, where there is one.
    pub db1: Option<Vec<f32>>,
    /// The gradient by W2.
    pub dw2: Vec<f32>,
    /// The gradient by b2 `[model_dim]`, where there is one.
    pub db2: Option<Vec<f32>>,
    /// The gradient by W3, where gated.
    pub dw3: Option<Vec<f32>>,
    /// The gradient by b3 `[hidden_dim]`, where there is one.
    pub db3: Option<Vec<f32>>,
}

impl Gpu {
    /// The gradients of sum(dout C) by A, B and the bias of a matrix product, from the gradient of C, which is stored and lies as C.
    /// The gradient by a residual is `dout` itself, and no `other` is read. Blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length, missing or not asked for, and as
    /// [`MatmulPlan::backward`](crate::MatmulPlan::backward).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, MatmulShape, MatmulSlices};
    /// let slices = MatmulSlices::new(&[1.0f32, 2.0], &[3.0f32, 4.0]);
    /// let gradients = Gpu::new()?.matmul_backward(&MatmulShape::new(1, 2, 1), slices, &[5.0f32])?;
    /// assert_eq!((&gradients.da[..], &gradients.db[..]), (&[15.0, 20.0][..], &[5.0, 10.0][..]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn matmul_backward<I: Element, W: Element, O: Element>(
        &self,
        shape: &MatmulShape,
        slices: MatmulSlices<'_, I, W, O>,
        dout: &[O],
    ) -> Result<MatmulGradients> {
        pollster::block_on(self.matmul_backward_async(shape, slices, dout))
    }

    /// [`Gpu::matmul_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::matmul_backward`].
    pub async fn matmul_backward_async<I: Element, W: Element, O: Element>(
        &self,
        shape: &MatmulShape,
        slices: MatmulSlices<'_, I, W, O>,
        dout: &[O],
    ) -> Result<MatmulGradients> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        if slices.other.is_some() {
            return Err(Error::argument("other", "none, since no gradient depends on it", "a tensor"));
        }
        let needs_bias = shape.bias && shape.activation.is_some();
        let plan = self.kernels_for(3.0 * shape.flops())?.matmul(&shape)?.backward()?;
        let a = self.slice("a", slices.a, shape.len_a(), shape.a_strides.is_some())?;
        let b = self.slice("b", slices.b, shape.len_b(), shape.b_strides.is_some())?;
        let bias = self.optional("bias", slices.bias, shape.bias, shape.columns, false)?;
        let dout = self.slice("dout", dout, shape.len_out(), shape.out_strides.is_some())?;
        self.check_alive()?;
        let [len_da, len_db] = [plan.len_da(), plan.len_db()];
        // A binding has at least one element, also that of an empty tensor.
        let output = |name, len: usize| self.output(name, len.max(4), ElementType::F32);
        let (da, db) = (output("da", len_da)?, output("db", len_db)?);
        let dbias = shape.bias.then(|| output("dbias", shape.columns)).transpose()?;
        let buffers = MatmulGradBuffers::new(whole(&a), whole(&b), whole(&dout))
            .bias(bias.as_ref().filter(|_| needs_bias).map(whole))
            .da(whole(&da))
            .db(whole(&db))
            .dbias(dbias.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let outputs: Vec<_> = [&da, &db].into_iter().chain(&dbias).collect();
        let fetched = self.fetch(&outputs, |encoder| call.encode(encoder)).await?;
        Ok(MatmulGradients {
            da: fetched.take(0, len_da)?,
            db: fetched.take(1, len_db)?,
            dbias: dbias.is_some().then(|| fetched.take(2, shape.columns)).transpose()?,
        })
    }

    /// The gradients of sum(dout y) of a feed-forward layer by x, its weights and its biases, in chunks of rows. `b2` and the
    /// residual are not read; the gradient by a residual is `dout` itself. Blocks.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`FeedForwardPlan::backward`](crate::FeedForwardPlan::backward).
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, FeedForwardShape, FeedForwardSlices, Gpu};
    /// let shape = FeedForwardShape::new(512, 64, 256, Activation::GeluErf);
    /// let [x, w1, w2, dout] =
    ///     [shape.len_x(), shape.len_weight(), shape.len_weight(), shape.len_x()].map(|len| vec![0.1f32; len]);
    /// let gradients = Gpu::new()?.feed_forward_backward(&shape, FeedForwardSlices::new(&x, &w1, &w2), &dout)?;
    /// assert_eq!(gradients.dw1.len(), 64 * 256);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn feed_forward_backward<I: Element, W: Element, O: Element>(
        &self,
        shape: &FeedForwardShape,
        slices: FeedForwardSlices<'_, I, W, O>,
        dout: &[O],
    ) -> Result<FeedForwardGradients> {
        pollster::block_on(self.feed_forward_backward_async(shape, slices, dout))
    }

    /// [`Gpu::feed_forward_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::feed_forward_backward`].
    pub async fn feed_forward_backward_async<I: Element, W: Element, O: Element>(
        &self,
        shape: &FeedForwardShape,
        slices: FeedForwardSlices<'_, I, W, O>,
        dout: &[O],
    ) -> Result<FeedForwardGradients> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        let plan = self.kernels_for(3.0 * shape.flops())?.feed_forward(&shape)?.backward()?;
        let (len, weights, hidden) = (shape.len_x(), shape.len_weight(), shape.hidden_dim);
        let (bias, gated) = (shape.bias, shape.gated);
        let x = self.slice("x", slices.x, len, false)?;
        let w1 = self.slice("w1", slices.w1, weights, false)?;
        let b1 = self.optional("b1", slices.b1, bias, hidden, false)?;
        let w3 = self.optional("w3", slices.w3, gated, weights, false)?;
        let b3 = self.optional("b3", slices.b3, gated && bias, hidden, false)?;
        let w2 = self.slice("w2", slices.w2, weights, false)?;
        let dout = self.slice("dout", dout, len, false)?;
        self.check_alive()?;
        // dx, dw1, dw2, db1, db2, dw3, db3; a binding has at least one element, also that of an empty tensor.
        let wanted = [
            ("dx", len, true),
            ("dw1", weights, true),
            ("dw2", weights, true),
            ("db1", hidden, bias),
            ("db2", shape.model_dim, bias),
            ("dw3", weights, gated),
            ("db3", hidden, gated && bias),
        ];
        let output = |(name, len, wanted): (&'static str, usize, bool)| {
            wanted.then(|| Ok((len, self.output(name, len.max(4), ElementType::F32)?))).transpose()
        };
        let outputs = wanted.into_iter().map(output).collect::<Result<Vec<_>>>()?;
        let binding = |n: usize| outputs[n].as_ref().map(|(_, buffer)| whole(buffer));
        let buffers = FeedForwardGradBuffers::new(whole(&x), whole(&w1), whole(&w2), whole(&dout))
            .b1(b1.as_ref().map(whole))
            .w3(w3.as_ref().map(whole))
            .b3(b3.as_ref().map(whole))
            .dx(binding(0))
            .dw1(binding(1))
            .dw2(binding(2))
            .db1(binding(3))
            .db2(binding(4))
            .dw3(binding(5))
            .db3(binding(6));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let there: Vec<_> = outputs.iter().flatten().map(|(_, buffer)| buffer).collect();
        let fetched = self.fetch(&there, |encoder| call.encode(encoder)).await?;
        let mut next = 0;
        let mut take = |of: &Option<(usize, wgpu::Buffer)>| {
            let Some((len, _)) = of else { return Ok(None) };
            next += 1;
            fetched.take(next - 1, *len).map(Some)
        };
        let taken = outputs.iter().map(&mut take).collect::<Result<Vec<Option<Vec<f32>>>>>()?;
        let [dx, dw1, dw2, db1, db2, dw3, db3] = taken.try_into().expect("seven gradients");
        let [dx, dw1, dw2] = [dx, dw1, dw2].map(Option::unwrap_or_default);
        Ok(FeedForwardGradients { dx, dw1, db1, dw2, db2, dw3, db3 })
    }
}
