//! Gradients of the kernels around attention on slices.

use super::NormGradBuffers;
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::{
    Combine, Element, ElementType, EmbedGradients, EmbedShape, NormShape, Result, RowGradients, SoftmaxShape,
};

/// What [`Gpu::norm_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NormGradOutput<G> {
    /// The gradient by x `[rows, width]`.
    pub dx: Vec<G>,
    /// The gradient by the weight `[width]`.
    pub dweight: Vec<f32>,
    /// The gradient by the bias `[width]`, if the shape has one.
    pub dbias: Option<Vec<f32>>,
}

/// Every function uploads, computes, waits and reads back; all gradients are contiguous, but for rows that the shape places.
impl Gpu {
    /// The gradients of a norm of x `[rows, width]` by x, weight and bias, given dout `[rows, width]`.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`NormPlan::backward`](crate::NormPlan::backward).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, NormKind, NormShape};
    /// let shape = NormShape::new(NormKind::Rms, 1, 2, 1e-6);
    /// let gradients = Gpu::new()?.norm_backward::<_, _, _, f32>(&shape, &[3.0f32, 4.0], &[1.0f32; 2], &[1.0f32, 0.0])?;
    /// // What changes the length of x changes nothing.
    /// assert!((3.0 * gradients.dx[0] + 4.0 * gradients.dx[1]).abs() < 1e-6);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn norm_backward<I: Element, W: Element, O: Element, G: Element>(
        &self,
        shape: &NormShape,
        x: &[I],
        weight: &[W],
        dout: &[O],
    ) -> Result<NormGradOutput<G>> {
        pollster::block_on(self.norm_backward_async(shape, x, weight, dout))
    }

    /// [`Gpu::norm_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::norm_backward`].
    pub async fn norm_backward_async<I: Element, W: Element, O: Element, G: Element>(
        &self,
        shape: &NormShape,
        x: &[I],
        weight: &[W],
        dout: &[O],
    ) -> Result<NormGradOutput<G>> {
        let shape = shape.input(I::TYPE).weight(W::TYPE).output(O::TYPE);
        let (rows, width) = (shape.rows, shape.width);
        let gradients = RowGradients::of_norm(&shape).dx(G::TYPE);
        let plan = self.kernels().norm(&shape)?.backward_with(gradients)?;
        let x = self.slice("x", x, shape.len_x(), shape.x_row.is_some())?;
        let weight = self.slice("weight", weight, width, false)?;
        let dout = self.slice("dout", dout, gradients.len_dout(rows, width), false)?;
        self.check_alive()?;
        if rows == 0 {
            let zeros = vec![0.0; width];
            return Ok(NormGradOutput {
                dx: vec![],
                dbias: shape.bias.then(|| zeros.clone()),
                dweight: zeros,
            });
        }
        let dx = self.output("dx", rows * width, G::TYPE)?;
        let dweight = self.output("dweight", width, ElementType::F32)?;
        let dbias = shape.bias.then(|| self.output("dbias", width, ElementType::F32)).transpose()?;
        let buffers = NormGradBuffers::new(whole(&x), whole(&weight), whole(&dout), whole(&dx))
            .dweight(whole(&dweight))
            .dbias(dbias.as_ref().map(whole));
        let call = plan.bind(buffers).map_err(|e| self.or_lost(e))?;
        let mut outputs = vec![&dx, &dweight];
        outputs.extend(dbias.as_ref());
        let fetched = self.fetch(&outputs, |encoder| call.encode(encoder)).await?;
        Ok(NormGradOutput {
            dx: fetched.take(0, rows * width)?,
            dweight: fetched.take(1, width)?,
            dbias: shape.bias.then(|| fetched.take(2, width)).transpose()?,
        })
    }

    /// The gradient of a softmax by its input, from what it gave, y `[rows, width]`, and dout `[rows, width]`. The shape says where the
    /// rows of y lie as [`out_row`](SoftmaxShape::out_row).
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`SoftmaxPlan::backward`](crate::SoftmaxPlan::backward).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, SoftmaxShape};
    /// let y = [0.25f32, 0.75]; // what the softmax returned
    /// let dx: Vec<f32> = Gpu::new()?.softmax_backward(&SoftmaxShape::new(1, 2), &y, &[1.0f32, 0.0])?;
    /// assert_eq!(dx, [0.1875, -0.1875]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn softmax_backward<Y: Element, O: Element, G: Element>(
        &self,
        shape: &SoftmaxShape,
        y: &[Y],
        dout: &[O],
    ) -> Result<Vec<G>> {
        pollster::block_on(self.softmax_backward_async(shape, y, dout))
    }

    /// [`Gpu::softmax_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::softmax_backward`].
    pub async fn softmax_backward_async<Y: Element, O: Element, G: Element>(
        &self,
        shape: &SoftmaxShape,
        y: &[Y],
        dout: &[O],
    ) -> Result<Vec<G>> {
        let shape = shape.output(Y::TYPE);
        let len = shape.rows * shape.width;
        let gradients = RowGradients::of_softmax(&shape).dout(O::TYPE).dx(G::TYPE);
        let plan = self.kernels().softmax(&shape)?.backward_with(gradients)?;
        let y = self.slice("y", y, shape.len_out(), shape.out_row.is_some())?;
        let dout = self.slice("dout", dout, len, false)?;
        self.layer(len, None, |dx| plan.bind(whole(&y), whole(&dout), whole(dx))).await
    }

    /// The gradient of an embedding by its table `[table_rows, width]`, given dout `[rows, width]`; a row `padding` has none, as
    /// PyTorch's `padding_idx`.
    ///
    /// # Errors
    /// As [`Gpu::matmul`] and [`EmbedPlan::backward`](crate::EmbedPlan::backward).
    ///
    /// ```no_run
    /// use wgpu_attention::{EmbedShape, Gpu};
    /// let dtable = Gpu::new()?.embed_backward(&EmbedShape::new(3, 4, 1), &[2, 0, 2], &[1.0f32, 2.0, 4.0], None)?;
    /// assert_eq!(dtable, [2.0, 0.0, 5.0, 0.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn embed_backward<O: Element>(
        &self,
        shape: &EmbedShape,
        ids: &[u32],
        dout: &[O],
        padding: Option<u32>,
    ) -> Result<Vec<f32>> {
        pollster::block_on(self.embed_backward_async(shape, ids, dout, padding))
    }

    /// [`Gpu::embed_backward`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::embed_backward`].
    pub async fn embed_backward_async<O: Element>(
        &self,
        shape: &EmbedShape,
        ids: &[u32],
        dout: &[O],
        padding: Option<u32>,
    ) -> Result<Vec<f32>> {
        let shape = shape.combine(Combine::Store).output(O::TYPE);
        let plan =
            self.kernels().embed(&shape)?.backward_with(EmbedGradients::of(&shape).padding(padding))?;
        let ids = self.slice("ids", ids, shape.rows, false)?;
        let dout = self.slice("dout", dout, shape.len_out(), shape.out_row.is_some())?;
        self.layer(shape.len_table(), None, |dtable| plan.bind(whole(&ids), whole(&dout), whole(dtable)))
            .await
    }
}
