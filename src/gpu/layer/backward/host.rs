//! Gradients of products for plain Rust users: slices in, `Vec`s out.

use super::MatmulGradBuffers;
use crate::gpu::Gpu;
use crate::gpu::layer::host::{MatmulSlices, whole};
use crate::{Element, ElementType, Error, MatmulShape, Result};

/// What [`Gpu::matmul_backward`] gives.
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
}
