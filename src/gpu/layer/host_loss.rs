//! The loss for plain Rust users: slices in, `Vec`s out.

use super::{CrossEntropyBuffers, DistillationBuffers};
use crate::gpu::Gpu;
use crate::gpu::bindings::whole;
use crate::gpu::call::Call;
use crate::{CrossEntropyShape, DistillationShape, Element, ElementType, Error, LossGradient, Result};

/// What [`Gpu::cross_entropy`] and [`Gpu::distillation`] return.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CrossEntropyOutput<G> {
    /// The loss of each row.
    pub loss: Vec<f32>,
    /// The gradient `[rows, vocabulary]`, if the shape has one; gaps between its rows are 0, or in place what the logits have there.
    pub gradient: Option<Vec<G>>,
}

impl Gpu {
    /// Softmax cross-entropy of logits `[rows, vocabulary]` against targets `[rows]`, and the gradient that the shape asks for, in
    /// the type G. [`LossGradient::InPlace`] saves memory of the device, and needs the type of the logits.
    ///
    /// # Errors
    /// [`Error::Argument`] for a slice of the wrong length and a G other than that of a gradient in place, and as
    /// [`Kernels::cross_entropy`](crate::Kernels::cross_entropy).
    ///
    /// ```no_run
    /// use wgpu_attention::{CrossEntropyShape, ElementType, Gpu, LossGradient};
    /// let shape = CrossEntropyShape::new(1, 2).gradient(LossGradient::Stored(ElementType::F32));
    /// let y = Gpu::new()?.cross_entropy::<f32, f32>(&shape, &[3.0, 3.0], &[0])?;
    /// assert!((y.loss[0] - 2f32.ln()).abs() < 1e-6);
    /// assert_eq!(y.gradient, Some(vec![-0.5, 0.5]));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn cross_entropy<I: Element, G: Element>(
        &self,
        shape: &CrossEntropyShape,
        logits: &[I],
        targets: &[u32],
    ) -> Result<CrossEntropyOutput<G>> {
        pollster::block_on(self.cross_entropy_async(shape, logits, targets))
    }

    /// [`Gpu::cross_entropy`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::cross_entropy`].
    pub async fn cross_entropy_async<I: Element, G: Element>(
        &self,
        shape: &CrossEntropyShape,
        logits: &[I],
        targets: &[u32],
    ) -> Result<CrossEntropyOutput<G>> {
        let shape = shape.gradient(gradient_in::<I, G>(shape.gradient)?).input(I::TYPE);
        let plan = self.kernels().cross_entropy(&shape)?;
        let targets = self.slice("targets", targets, shape.rows, false)?;
        self.loss(&shape, logits, |logits, loss, gradient| {
            let buffers = CrossEntropyBuffers::new(logits, whole(&targets), loss);
            plan.bind(buffers.gradient(gradient))
        })
        .await
    }

    /// The loss of distillation of a student's logits against a teacher's, both `[rows, vocabulary]`, and the gradient that the shape asks for,
    /// in the type G; otherwise as [`Gpu::cross_entropy`].
    ///
    /// # Errors
    /// As [`Gpu::cross_entropy`] and [`Kernels::distillation`](crate::Kernels::distillation).
    ///
    /// ```no_run
    /// use wgpu_attention::{DistillationShape, Gpu};
    /// let shape = DistillationShape::new(1, 2, 2.0);
    /// let y = Gpu::new()?.distillation::<f32, f32, f32>(&shape, &[3.0, 3.0], &[5.0, 5.0])?;
    /// assert!(y.loss[0].abs() < 1e-6);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn distillation<I: Element, T: Element, G: Element>(
        &self,
        shape: &DistillationShape,
        logits: &[I],
        teacher: &[T],
    ) -> Result<CrossEntropyOutput<G>> {
        pollster::block_on(self.distillation_async(shape, logits, teacher))
    }

    /// [`Gpu::distillation`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::distillation`].
    pub async fn distillation_async<I: Element, T: Element, G: Element>(
        &self,
        shape: &DistillationShape,
        logits: &[I],
        teacher: &[T],
    ) -> Result<CrossEntropyOutput<G>> {
        let shape = shape.gradient(gradient_in::<I, G>(shape.gradient)?).input(I::TYPE).teacher(T::TYPE);
        let plan = self.kernels().distillation(&shape)?;
        let teacher = self.slice("teacher", teacher, shape.len_teacher(), shape.teacher_row.is_some())?;
        self.loss(&shape.as_cross_entropy(), logits, |logits, loss, gradient| {
            let buffers = DistillationBuffers::new(logits, whole(&teacher), loss);
            plan.bind(buffers.gradient(gradient))
        })
        .await
    }

    /// Runs a loss of these logits, of a shape that is checked.
    async fn loss<I: Element, G: Element>(
        &self,
        shape: &CrossEntropyShape,
        logits: &[I],
        bind: impl FnOnce(Binding<'_>, Binding<'_>, Option<Binding<'_>>) -> Result<Call>,
    ) -> Result<CrossEntropyOutput<G>> {
        let strided = shape.logits_row.is_some();
        self.check_alive()?;
        if shape.rows == 0 {
            return Ok(CrossEntropyOutput { loss: vec![], gradient: shape.gradient_type().map(|_| vec![]) });
        }
        let loss = self.output("loss", shape.rows, ElementType::F32)?;
        let (len, in_place) = (shape.len_logits(), shape.gradient == LossGradient::InPlace);
        // In place, the logits are copied to where their gradient will be.
        let before = self.before("logits", in_place.then_some(logits), in_place, len, strided)?;
        let logits = match in_place {
            true => self.output("logits", len, shape.input)?,
            false => self.slice("logits", logits, len, strided)?,
        };
        let apart = match shape.gradient {
            LossGradient::Stored(element) => Some(self.output("gradient", shape.len_gradient(), element)?),
            _ => None,
        };
        let call =
            bind(whole(&logits), whole(&loss), apart.as_ref().map(whole)).map_err(|e| self.or_lost(e))?;
        let gradient = if in_place { Some(&logits) } else { apart.as_ref() };
        let mut outputs = vec![&loss];
        outputs.extend(gradient);
        let record = |encoder: &mut wgpu::CommandEncoder| {
            if let Some(before) = &before {
                encoder.copy_buffer_to_buffer(before, 0, &logits, 0, before.size());
            }
            call.encode(encoder);
        };
        let fetched = self.fetch(&outputs, record).await?;
        Ok(CrossEntropyOutput {
            loss: fetched.take(0, shape.rows)?,
            gradient: gradient.is_some().then(|| fetched.take(1, shape.len_gradient())).transpose()?,
        })
    }
}

type Binding<'a> = wgpu::BufferBinding<'a>;

/// The gradient in the caller's type, which in place must be that of the logits.
fn gradient_in<I: Element, G: Element>(gradient: LossGradient) -> Result<LossGradient> {
    match gradient {
        LossGradient::Stored(_) => Ok(LossGradient::Stored(G::TYPE)),
        LossGradient::InPlace if G::TYPE != I::TYPE => {
            let need = format!("one of {}, since it is in place", I::TYPE);
            Err(Error::argument("gradient", need, G::TYPE))
        }
        as_it_is => Ok(as_it_is),
    }
}
