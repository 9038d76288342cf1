//! Softmax cross-entropy: the loss of every row, and its gradient by the logits.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{CrossEntropyParams, Params};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::CrossEntropyVariant;
use crate::{CrossEntropyShape, ElementType, LossGradient, Result};
use std::sync::Arc;

/// A planned loss: made by [`Kernels::cross_entropy`].
#[derive(Debug, Clone)]
pub struct CrossEntropyPlan {
    kernels: Kernels,
    shape: CrossEntropyShape,
    pipeline: Arc<Pipeline>,
    work: Work,
}

/// The buffers of a loss. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also read, but for the
/// logits of a gradient [in place](LossGradient::InPlace), which is said by the shape and has no binding of its own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CrossEntropyBuffers<'a> {
    /// Logits `[rows, vocabulary]`; afterwards their gradient, if that is in place.
    pub logits: wgpu::BufferBinding<'a>,
    /// Targets `[rows]`, u32.
    pub targets: wgpu::BufferBinding<'a>,
    /// The loss `[rows]`, f32.
    pub loss: wgpu::BufferBinding<'a>,
    /// The gradient `[rows, vocabulary]`, if and only if the shape stores one.
    pub gradient: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    CrossEntropyBuffers ['a] { logits: wgpu::BufferBinding<'a>, targets: wgpu::BufferBinding<'a>, loss: wgpu::BufferBinding<'a> }
    { gradient: wgpu::BufferBinding<'a> }
}

impl Kernels {
    /// Plans a softmax cross-entropy, with or without its gradient.
    ///
    /// # Errors
    /// As [`CrossEntropyShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{CrossEntropyBuffers, CrossEntropyShape, Kernels, LossGradient};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let shape = CrossEntropyShape::new(512, 50257).gradient(LossGradient::InPlace).factor(1.0 / 512.0);
    /// let [logits, targets, loss] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// // Afterwards `logits` holds the gradient of the mean loss.
    /// kernels.cross_entropy(&shape)?.bind(CrossEntropyBuffers::new(logits, targets, loss))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn cross_entropy(&self, shape: &CrossEntropyShape) -> Result<CrossEntropyPlan> {
        shape.check()?;
        let sizes = [shape.vocabulary, shape.stride_of_logits(), shape.stride_of_gradient()];
        let variant = CrossEntropyVariant {
            input: shape.input,
            gradient: shape.gradient,
            aligned: sizes.iter().all(|n| n.is_multiple_of(4)),
        };
        let shader = variant.shader();
        // A workgroup per row.
        let work = self.work(shader.entry, shape.rows as u128, 15.0 * shape.vocabulary as f64)?;
        Ok(CrossEntropyPlan { kernels: self.clone(), shape: *shape, pipeline: self.pipeline(shader)?, work })
    }
}

impl CrossEntropyPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &CrossEntropyShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: CrossEntropyBuffers<'_>) -> Result<Call> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        if shape.rows == 0 {
            return Ok(Call::new("cross entropy", []));
        }
        let logits = checked_binding(&limits, "logits", &buffers.logits, shape.len_logits(), shape.input)?;
        // A u32 has the size of an f32.
        let targets = checked_binding(&limits, "targets", &buffers.targets, shape.rows, ElementType::F32)?;
        let loss = checked_binding(&limits, "loss", &buffers.loss, shape.rows, ElementType::F32)?;
        let (stored, element) = match shape.gradient {
            LossGradient::Stored(element) => (true, element),
            _ => (false, shape.input),
        };
        let len = shape.len_gradient();
        let gradient = optional_binding(&limits, "gradient", &buffers.gradient, stored, len, element)?;
        let in_place = shape.gradient == LossGradient::InPlace;
        check_aliasing(
            &[
                ("logits", Some(&logits), if in_place { Access::Write } else { Access::Read }),
                ("targets", Some(&targets), Access::Read),
                ("loss", Some(&loss), Access::Write),
                ("gradient", gradient.as_ref(), Access::Write),
            ],
            self.kernels.options().shared_buffers,
        )?;
        let bindings = Bindings::default().with("targets", targets).with("loss", loss);
        let bindings = match in_place {
            true => bindings.with("out", logits),
            false => bindings.with("x", logits).with_some("out", gradient),
        };
        let params = Params::of(self.params());
        let step = Step::new(self.kernels.device(), &self.pipeline, &params, self.work, &bindings)?;
        Ok(Call::of_steps("cross entropy", [step]))
    }

    fn params(&self) -> CrossEntropyParams {
        let shape = &self.shape;
        let (at_target, at_all) = shape.target_weights();
        CrossEntropyParams {
            width: shape.vocabulary as u32,
            x_row: shape.stride_of_logits() as u32,
            out_row: shape.stride_of_gradient() as u32,
            may_ignore: shape.ignore_index.is_some().into(),
            ignored: shape.ignore_index.unwrap_or(0),
            at_target: at_target as f32,
            at_all: at_all as f32,
            factor: shape.factor,
            ..Default::default()
        }
    }
}
