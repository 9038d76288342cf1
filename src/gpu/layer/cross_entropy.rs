//! Softmax cross-entropy, against targets or a teacher: the loss of every row, and its gradient by the logits.

use crate::construct::constructed;
use crate::gpu::Kernels;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding};
use crate::gpu::call::Call;
use crate::gpu::params::{CrossEntropyParams, Params, TargetParams, TeacherParams};
use crate::gpu::pipeline::{Pipeline, Step, Work};
use crate::wgsl::CrossEntropyVariant;
use crate::{CrossEntropyShape, DistillationShape, ElementType, LossGradient, Result};
use std::sync::Arc;

/// A planned loss: made by [`Kernels::cross_entropy`].
#[derive(Debug, Clone)]
pub struct CrossEntropyPlan {
    shape: CrossEntropyShape,
    planned: Planned,
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

/// A planned loss of distillation: made by [`Kernels::distillation`].
#[derive(Debug, Clone)]
pub struct DistillationPlan {
    shape: DistillationShape,
    planned: Planned,
}

/// The buffers of a loss of distillation; otherwise as [`CrossEntropyBuffers`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DistillationBuffers<'a> {
    /// The student's logits `[rows, vocabulary]`; afterwards their gradient, if that is in place.
    pub logits: wgpu::BufferBinding<'a>,
    /// The teacher's logits `[rows, vocabulary]`.
    pub teacher: wgpu::BufferBinding<'a>,
    /// The loss `[rows]`, f32.
    pub loss: wgpu::BufferBinding<'a>,
    /// The gradient `[rows, vocabulary]`, if and only if the shape stores one.
    pub gradient: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    DistillationBuffers ['a] { logits: wgpu::BufferBinding<'a>, teacher: wgpu::BufferBinding<'a>, loss: wgpu::BufferBinding<'a> }
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
        Ok(CrossEntropyPlan { shape: *shape, planned: Planned::new(self, shape, None)? })
    }

    /// Plans a loss of distillation, with or without its gradient: the same kernel, but that a teacher's logits say what is wanted.
    ///
    /// # Errors
    /// As [`DistillationShape::check`]; [`Error::Device`](crate::Error::Device) for what wgpu reports while compiling.
    ///
    /// ```no_run
    /// use wgpu_attention::{DistillationBuffers, DistillationShape, Kernels, LossGradient};
    /// # fn example(kernels: &Kernels, encoder: &mut wgpu::CommandEncoder, buffers: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let shape = DistillationShape::new(512, 30522, 2.0).gradient(LossGradient::InPlace).factor(1.0 / 512.0);
    /// let [logits, teacher, loss] = buffers.map(wgpu::Buffer::as_entire_buffer_binding);
    /// kernels.distillation(&shape)?.bind(DistillationBuffers::new(logits, teacher, loss))?.encode(encoder);
    /// # Ok(())
    /// # }
    /// ```
    pub fn distillation(&self, shape: &DistillationShape) -> Result<DistillationPlan> {
        shape.check()?;
        let teacher = Some((shape.teacher, shape.stride_of_teacher()));
        Ok(DistillationPlan {
            shape: *shape,
            planned: Planned::new(self, &shape.as_cross_entropy(), teacher)?,
        })
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
        let shape = &self.shape;
        let (at_target, at_all) = shape.target_weights();
        let wanted = TargetParams {
            may_ignore: shape.ignore_index.is_some().into(),
            ignored: shape.ignore_index.unwrap_or(0),
            at_target: at_target as f32,
            at_all: at_all as f32,
        };
        let params =
            Params::default().with("wanted", wanted).with("kernel", kernel_params(shape, shape.factor));
        // A u32 has the size of an f32.
        let targets = ("targets", buffers.targets, shape.rows, ElementType::F32);
        self.planned.call(
            "cross entropy",
            shape,
            &params,
            [buffers.logits, buffers.loss],
            targets,
            buffers.gradient,
        )
    }
}

impl DistillationPlan {
    /// The shape that was planned.
    pub fn shape(&self) -> &DistillationShape {
        &self.shape
    }

    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](super::MatmulPlan::bind).
    pub fn bind(&self, buffers: DistillationBuffers<'_>) -> Result<Call> {
        let (shape, temperature) = (&self.shape, f64::from(self.shape.temperature));
        let wanted = TeacherParams {
            teacher_row: shape.stride_of_teacher() as u32,
            scale: temperature.recip() as f32,
            weight: (temperature * temperature) as f32,
        };
        let (alike, factor) = (shape.as_cross_entropy(), temperature * f64::from(shape.factor));
        let params =
            Params::default().with("wanted", wanted).with("kernel", kernel_params(&alike, factor as f32));
        let teacher = ("teacher", buffers.teacher, shape.len_teacher(), shape.teacher);
        self.planned.call(
            "distillation",
            &alike,
            &params,
            [buffers.logits, buffers.loss],
            teacher,
            buffers.gradient,
        )
    }
}

fn kernel_params(shape: &CrossEntropyShape, factor: f32) -> CrossEntropyParams {
    CrossEntropyParams {
        width: shape.vocabulary as u32,
        x_row: shape.stride_of_logits() as u32,
        out_row: shape.stride_of_gradient() as u32,
        factor,
        ..Default::default()
    }
}

/// What a call reads beside the logits: its name, the buffer, how many elements of which type.
type Wanted<'a> = (&'static str, wgpu::BufferBinding<'a>, usize, ElementType);

/// The kernel of a loss, whatever says what is wanted.
#[derive(Debug, Clone)]
struct Planned {
    kernels: Kernels,
    pipeline: Arc<Pipeline>,
    work: Work,
}

impl Planned {
    /// `teacher`: its storage, and from row to row.
    fn new(
        kernels: &Kernels,
        shape: &CrossEntropyShape,
        teacher: Option<(ElementType, usize)>,
    ) -> Result<Self> {
        let mut sizes = vec![shape.vocabulary, shape.stride_of_logits(), shape.stride_of_gradient()];
        sizes.extend(teacher.map(|(_, row)| row));
        let variant = CrossEntropyVariant {
            input: shape.input,
            teacher: teacher.map(|(element, _)| element),
            gradient: shape.gradient,
            aligned: sizes.iter().all(|n| n.is_multiple_of(4)),
        };
        let shader = variant.shader();
        // A workgroup per row.
        let flops = if teacher.is_some() { 30.0 } else { 15.0 };
        let work = kernels.work(shader.entry, shape.rows as u128, flops * shape.vocabulary as f64)?;
        Ok(Self { kernels: kernels.clone(), pipeline: kernels.pipeline(shader)?, work })
    }

    fn call(
        &self,
        label: &'static str,
        shape: &CrossEntropyShape,
        params: &Params,
        [logits, loss]: [wgpu::BufferBinding<'_>; 2],
        (name, wanted, len_wanted, of_wanted): Wanted<'_>,
        gradient: Option<wgpu::BufferBinding<'_>>,
    ) -> Result<Call> {
        let limits = self.kernels.device().limits();
        if shape.rows == 0 {
            return Ok(Call::new(label, []));
        }
        let logits = checked_binding(&limits, "logits", &logits, shape.len_logits(), shape.input)?;
        let wanted = checked_binding(&limits, name, &wanted, len_wanted, of_wanted)?;
        let loss = checked_binding(&limits, "loss", &loss, shape.rows, ElementType::F32)?;
        let (stored, element) = match shape.gradient {
            LossGradient::Stored(element) => (true, element),
            _ => (false, shape.input),
        };
        let len = shape.len_gradient();
        let gradient = optional_binding(&limits, "gradient", &gradient, stored, len, element)?;
        let in_place = shape.gradient == LossGradient::InPlace;
        let named = [
            ("logits", Some(&logits), if in_place { Access::Write } else { Access::Read }),
            (name, Some(&wanted), Access::Read),
            ("loss", Some(&loss), Access::Write),
            ("gradient", gradient.as_ref(), Access::Write),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let bindings = Bindings::default().with(name, wanted).with("loss", loss);
        let bindings = match in_place {
            true => bindings.with("out", logits),
            false => bindings.with("x", logits).with_some("out", gradient),
        };
        let step = Step::new(self.kernels.device(), &self.pipeline, params, self.work, &bindings)?;
        Ok(Call::of_steps(label, [step]))
    }
}
