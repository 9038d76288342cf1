//! The optimizers for plain Rust users: slices in, `Vec`s out.

use super::OptimizerBuffers;
use crate::construct::constructed;
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::{ClipShape, Element, ElementType, Error, OptimizerShape, OptimizerStep, Result};

/// The tensors of an optimizer's step, as [`OptimizerBuffers`] describes them.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OptimizerSlices<'a, G> {
    /// The parameters `[len]`.
    pub parameters: &'a [f32],
    /// Their gradient `[len]`.
    pub gradient: &'a [G],
    /// The first state `[len]`, where the rule has one.
    pub first: Option<&'a [f32]>,
    /// The second state `[len]`, where the rule has one.
    pub second: Option<&'a [f32]>,
    /// Norm and factor, where the shape is clipped: what [`Gpu::clip`] returns.
    pub clip: Option<&'a [f32]>,
}

constructed! {
    OptimizerSlices ['a, G] { parameters: &'a [f32], gradient: &'a [G] }
    { first: &'a [f32], second: &'a [f32], clip: &'a [f32] }
}

/// What [`Gpu::optimizer`] returns: all that the next step needs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OptimizerOutput {
    /// The parameters.
    pub parameters: Vec<f32>,
    /// The first state, where the rule has one.
    pub first: Option<Vec<f32>>,
    /// The second state, where the rule has one.
    pub second: Option<Vec<f32>>,
}

impl Gpu {
    /// One step of an optimizer. A copy in 16 bits is for buffers ([`Kernels::optimizer`](crate::Kernels::optimizer)): here the shape has none.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length, missing or not asked for, a shape with a rounded copy, and as
    /// [`Kernels::optimizer`](crate::Kernels::optimizer).
    ///
    /// ```no_run
    /// use wgpu_attention::{Gpu, OptimizerRule, OptimizerShape, OptimizerSlices, OptimizerStep};
    /// let shape = OptimizerShape::new(1, OptimizerRule::SGD);
    /// let slices = OptimizerSlices::new(&[1.0], &[0.5f32]);
    /// let y = Gpu::new()?.optimizer(&shape, OptimizerStep::new(1, 0.5), slices)?;
    /// assert_eq!(y.parameters, [0.75]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn optimizer<G: Element>(
        &self,
        shape: &OptimizerShape,
        step: OptimizerStep,
        slices: OptimizerSlices<'_, G>,
    ) -> Result<OptimizerOutput> {
        pollster::block_on(self.optimizer_async(shape, step, slices))
    }

    /// [`Gpu::optimizer`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::optimizer`].
    pub async fn optimizer_async<G: Element>(
        &self,
        shape: &OptimizerShape,
        step: OptimizerStep,
        slices: OptimizerSlices<'_, G>,
    ) -> Result<OptimizerOutput> {
        if let Some(element) = shape.rounded {
            return Err(Error::argument("rounded", "none, where slices are given", element));
        }
        let shape = shape.gradient(G::TYPE);
        let plan = self.kernels().optimizer(&shape)?;
        let (len, has_first, has_second) = (shape.len, shape.rule.has_first(), shape.rule.has_second());
        let gradient = self.slice("gradient", slices.gradient, len, false)?;
        let clip = self.optional("clip", slices.clip, shape.clipped, 2, false)?;
        // What is read and written is copied to where it will be left.
        let before = [
            self.before("parameters", Some(slices.parameters), true, len, false)?,
            self.before("first", slices.first, has_first, len, false)?,
            self.before("second", slices.second, has_second, len, false)?,
        ];
        self.check_alive()?;
        let output = |name| self.output(name, len.max(1), ElementType::F32);
        let after = [output("parameters")?, output("first")?, output("second")?];
        let state = |n: usize, wanted: bool| wanted.then(|| whole(&after[n]));
        let buffers = OptimizerBuffers::new(whole(&after[0]), whole(&gradient))
            .first(state(1, has_first))
            .second(state(2, has_second))
            .clip(clip.as_ref().map(whole));
        let call = plan.bind(buffers, step).map_err(|e| self.or_lost(e))?;
        let record = |encoder: &mut wgpu::CommandEncoder| {
            for (before, after) in before.iter().zip(&after) {
                if let Some(before) = before {
                    encoder.copy_buffer_to_buffer(before, 0, after, 0, before.size());
                }
            }
            call.encode(encoder);
        };
        let fetched = self.fetch(&after.each_ref(), record).await?;
        Ok(OptimizerOutput {
            parameters: fetched.take(0, len)?,
            first: has_first.then(|| fetched.take(1, len)).transpose()?,
            second: has_second.then(|| fetched.take(2, len)).transpose()?,
        })
    }

    /// The norm of gradients of one type, and the factor that clips it: `[norm, factor]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of tensors or one of the wrong length, and as [`Kernels::clip`](crate::Kernels::clip).
    ///
    /// ```no_run
    /// use wgpu_attention::{ClipShape, ElementType, Gpu};
    /// let shape = ClipShape::new(0.5).tensor(2, ElementType::F32);
    /// assert_eq!(Gpu::new()?.clip(&shape, &[&[3.0f32, 4.0]])?[0], 5.0);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn clip<G: Element>(&self, shape: &ClipShape, tensors: &[&[G]]) -> Result<Vec<f32>> {
        pollster::block_on(self.clip_async(shape, tensors))
    }

    /// [`Gpu::clip`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::clip`].
    pub async fn clip_async<G: Element>(&self, shape: &ClipShape, tensors: &[&[G]]) -> Result<Vec<f32>> {
        let mut shape = shape.clone();
        shape.tensors.iter_mut().for_each(|tensor| tensor.1 = G::TYPE);
        let plan = self.kernels().clip(&shape)?;
        if tensors.len() != shape.tensors.len() {
            return Err(Error::argument(
                "tensors",
                format!("{} tensors", shape.tensors.len()),
                tensors.len(),
            ));
        }
        let upload =
            |(tensor, (len, _)): (&&[G], &(usize, ElementType))| self.slice("tensors", tensor, *len, false);
        let uploaded = tensors.iter().zip(&shape.tensors).map(upload).collect::<Result<Vec<_>>>()?;
        let bindings: Vec<_> = uploaded.iter().map(whole).collect();
        self.layer(2, None, |out| plan.bind(&bindings, whole(out))).await
    }
}
