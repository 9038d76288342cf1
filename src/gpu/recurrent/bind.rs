//! Buffers checked and bound to a plan of a recurrent network: a call, ready to record.

use super::{RecurrentPlan, STEPS};
use crate::construct::constructed;
use crate::gpu::bindings::{
    Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch, whole,
};
use crate::gpu::call::{Call, Stage};
use crate::gpu::layer::{Cut, Operands, Start};
use crate::gpu::params::{Params, RecurrentParams};
use crate::gpu::pipeline::{Step, Work};
use crate::recurrent::check_parts;
use crate::{ElementType, Error, Result};

/// The buffers of one call of a recurrent network. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is also read.
/// Offsets and sizes are as for [`AttentionBuffers`](crate::AttentionBuffers).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecurrentBuffers<'a> {
    /// x `[B, T, in]`, f32; or `[T, B, in]`.
    pub x: wgpu::BufferBinding<'a>,
    /// out `[B, T, D H]`, f32; or `[T, B, D H]`: h after every step.
    pub out: wgpu::BufferBinding<'a>,
    /// `[layers D, B, H]`, f32: h after the last step.
    pub h_n: wgpu::BufferBinding<'a>,
    /// As h_n, if and only if the cell is an LSTM: c after the last step.
    pub c_n: Option<wgpu::BufferBinding<'a>>,
    /// h before the first step, `[layers D, B, H]`, f32, if and only if [`RecurrentShape::initial`](crate::RecurrentShape::initial).
    pub h0: Option<wgpu::BufferBinding<'a>>,
    /// c before the first step, `[layers D, B, H]`, f32, if and only if [`RecurrentShape::initial`](crate::RecurrentShape::initial) and the cell is an LSTM.
    pub c0: Option<wgpu::BufferBinding<'a>>,
    /// The weights of each layer and direction: layer l and direction d are number l D + d.
    pub weights: Vec<RecurrentWeightBuffers<'a>>,
}

constructed! {
    RecurrentBuffers ['a] { x: wgpu::BufferBinding<'a>, out: wgpu::BufferBinding<'a>, h_n: wgpu::BufferBinding<'a> }
    { c_n: wgpu::BufferBinding<'a>, h0: wgpu::BufferBinding<'a>, c0: wgpu::BufferBinding<'a> }
    { weights }
}

impl<'a> RecurrentBuffers<'a> {
    /// Sets `weights`.
    pub fn weights(mut self, weights: impl IntoIterator<Item = RecurrentWeightBuffers<'a>>) -> Self {
        self.weights = weights.into_iter().collect();
        self
    }
}

/// The weights of a layer and direction, in the shape's [`weight`](crate::RecurrentShape::weight) type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecurrentWeightBuffers<'a> {
    /// `[gates H, in]`, in being D H above the first layer.
    pub weight_ih: wgpu::BufferBinding<'a>,
    /// `[gates H, H]`.
    pub weight_hh: wgpu::BufferBinding<'a>,
    /// `[gates H]`, if and only if [`RecurrentShape::bias`](crate::RecurrentShape::bias).
    pub bias_ih: Option<wgpu::BufferBinding<'a>>,
    /// `[gates H]`, if and only if [`RecurrentShape::bias`](crate::RecurrentShape::bias).
    pub bias_hh: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    RecurrentWeightBuffers ['a] { weight_ih: wgpu::BufferBinding<'a>, weight_hh: wgpu::BufferBinding<'a> }
    { bias_ih: wgpu::BufferBinding<'a>, bias_hh: wgpu::BufferBinding<'a> }
}

/// Scratch that several calls share: those recorded one after the other need it only while they run. Made by [`RecurrentPlan::scratch`]; it
/// serves every plan of a recurrent network that needs no more bytes of it, on the same device.
#[derive(Debug, Clone)]
pub struct RecurrentScratch {
    /// Input products of a block.
    inputs: wgpu::Buffer,
    /// What layers leave for the next ones, in turn.
    between: [wgpu::Buffer; 2],
}

/// The scratch of a call in bytes: input products, the out of layers; 0 where it is not needed.
fn sizes(plan: &RecurrentPlan) -> [u64; 3] {
    let shape = plan.shape();
    let between = |layers| if shape.layers > layers { 4 * shape.len_out() as u64 } else { 0 };
    let inputs = 4 * (shape.batch * plan.block() * shape.rows()) as u64;
    [inputs, between(1), between(2)]
}

/// A layer in one direction: its number, and which tensors it reads and writes.
struct Pass<'a> {
    layer: usize,
    direction: usize,
    x: wgpu::BufferBinding<'a>,
    out: wgpu::BufferBinding<'a>,
}

impl RecurrentPlan {
    /// Bytes of a call's scratch: the input products of a block of positions, and what layers leave for each other.
    pub fn scratch_bytes(&self) -> u64 {
        sizes(self).iter().sum()
    }

    /// Scratch for calls of this plan.
    ///
    /// # Errors
    /// [`Error::Limit`] past the device's limits, [`Error::OutOfMemory`].
    pub fn scratch(&self) -> Result<RecurrentScratch> {
        let [inputs, one, other] = sizes(self);
        let make = |what, bytes| scratch(self.kernels.device(), what, bytes);
        let between = [make("between layers", one)?, make("between layers", other)?];
        Ok(RecurrentScratch { inputs: make("input products", inputs)?, between })
    }

    /// Checks the buffers and binds them: nothing is recorded yet. Scratch of [`scratch_bytes`](Self::scratch_bytes) is allocated for this
    /// call alone.
    ///
    /// # Errors
    /// [`Error::Argument`] for a buffer that is too small, missing, not asked for, lacks the usage, is misaligned, or serves as input and as
    /// output, and for another number of weights than layers and directions; [`Error::Limit`] for buffers or scratch past the device's binding
    /// size; [`Error::Device`] for what wgpu reports.
    pub fn bind(&self, buffers: RecurrentBuffers<'_>) -> Result<Call> {
        let buffers = self.checked(buffers)?;
        if self.shape.batch == 0 {
            return Ok(Call::new("recurrent", []));
        }
        self.bound(&buffers, &self.scratch()?)
    }

    /// [`bind`](Self::bind) with scratch that other calls use, too.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Argument`] for scratch that is too small.
    pub fn bind_with(&self, buffers: RecurrentBuffers<'_>, scratch: &RecurrentScratch) -> Result<Call> {
        let buffers = self.checked(buffers)?;
        if self.shape.batch == 0 {
            return Ok(Call::new("recurrent", []));
        }
        let have = std::iter::once(&scratch.inputs).chain(&scratch.between).map(wgpu::Buffer::size);
        if let Some((need, have)) = sizes(self).into_iter().zip(have).find(|(need, have)| need > have) {
            return Err(Error::argument("scratch", format!("{need} bytes"), format!("{have} bytes")));
        }
        self.bound(&buffers, scratch)
    }

    /// The buffers, each cut to its tensor.
    fn checked<'a>(&self, buffers: RecurrentBuffers<'a>) -> Result<RecurrentBuffers<'a>> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let f32 = ElementType::F32;
        let optional = |name, binding: &Option<wgpu::BufferBinding<'a>>, wanted, len, element| {
            optional_binding(&limits, name, binding, wanted, len, element)
        };
        check_parts(shape, buffers.weights.len())?;
        let of_part = |(n, part): (usize, &RecurrentWeightBuffers<'a>)| {
            let (of_inputs, of_states) = (shape.len_weight_ih(n / shape.directions()), shape.len_weight_hh());
            let bias = |name, binding| optional(name, binding, shape.bias, shape.len_bias(), shape.weight);
            Ok(RecurrentWeightBuffers {
                weight_ih: checked_binding(&limits, "weight_ih", &part.weight_ih, of_inputs, shape.weight)?,
                weight_hh: checked_binding(&limits, "weight_hh", &part.weight_hh, of_states, shape.weight)?,
                bias_ih: bias("bias_ih", &part.bias_ih)?,
                bias_hh: bias("bias_hh", &part.bias_hh)?,
            })
        };
        let (len, has_c) = (shape.len_state(), shape.cell.has_c());
        let buffers = RecurrentBuffers {
            x: checked_binding(&limits, "x", &buffers.x, shape.len_x(), f32)?,
            out: checked_binding(&limits, "out", &buffers.out, shape.len_out(), f32)?,
            h_n: checked_binding(&limits, "h_n", &buffers.h_n, len, f32)?,
            c_n: optional("c_n", &buffers.c_n, has_c, len, f32)?,
            h0: optional("h0", &buffers.h0, shape.initial, len, f32)?,
            c0: optional("c0", &buffers.c0, shape.initial && has_c, len, f32)?,
            weights: buffers.weights.iter().enumerate().map(of_part).collect::<Result<_>>()?,
        };
        let mut named = vec![
            ("x", Some(&buffers.x), Access::Read),
            ("h0", buffers.h0.as_ref(), Access::Read),
            ("c0", buffers.c0.as_ref(), Access::Read),
        ];
        for part in &buffers.weights {
            named.extend([
                ("weight_ih", Some(&part.weight_ih), Access::Read),
                ("weight_hh", Some(&part.weight_hh), Access::Read),
                ("bias_ih", part.bias_ih.as_ref(), Access::Read),
                ("bias_hh", part.bias_hh.as_ref(), Access::Read),
            ]);
        }
        // A step reads what the one before wrote of out and of c.
        named.extend([
            ("out", Some(&buffers.out), Access::Write),
            ("h_n", Some(&buffers.h_n), Access::Write),
            ("c_n", buffers.c_n.as_ref(), Access::Write),
        ]);
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        Ok(buffers)
    }

    /// Layer by layer, one direction after the other; each block by block.
    fn bound(&self, buffers: &RecurrentBuffers<'_>, scratch: &RecurrentScratch) -> Result<Call> {
        let shape = &self.shape;
        let mut steps = vec![];
        for layer in 0..shape.layers {
            let between = |layer: usize| whole(&scratch.between[layer % 2]);
            let x = if layer == 0 { buffers.x.clone() } else { between(layer - 1) };
            let out = if layer + 1 == shape.layers { buffers.out.clone() } else { between(layer) };
            for direction in 0..shape.directions() {
                let pass = Pass { layer, direction, x: x.clone(), out: out.clone() };
                let blocks = (0..shape.steps).step_by(self.inner.block);
                let blocks: Vec<_> = if direction == 0 { blocks.collect() } else { blocks.rev().collect() };
                for first in blocks {
                    self.block_steps(buffers, scratch, &pass, first, &mut steps)?;
                }
            }
        }
        Ok(Call::new("recurrent", steps))
    }

    /// The input products of a block of positions, then its steps.
    fn block_steps(
        &self,
        buffers: &RecurrentBuffers<'_>,
        scratch: &RecurrentScratch,
        pass: &Pass<'_>,
        first: usize,
        steps: &mut Vec<(Stage, Step)>,
    ) -> Result<()> {
        let (shape, inner) = (&self.shape, &self.inner);
        let product = &inner.products[pass.layer.min(1)];
        let part = &buffers.weights[pass.layer * shape.directions() + pass.direction];
        let positions = inner.block.min(shape.steps - first);
        let operands = Operands {
            a: pass.x.clone(),
            b: part.weight_ih.clone(),
            bias: part.bias_ih.clone(),
            residual: None,
            out: whole(&scratch.inputs),
        };
        // Rows of a position side by side, where items are not products of their own.
        let rows_each = if product.shape().batch == 1 { shape.batch } else { 1 };
        let (rows, start) = (positions * rows_each, Start::row(first * rows_each));
        steps.push((
            Stage::Prepare,
            product.step(&operands, Cut { rows, a: start, ..Cut::all(product.shape()) })?,
        ));

        // In the direction's order; a buffer of parameters has slots for so many.
        let before = if pass.direction == 0 { first } else { shape.steps - first - positions };
        for done in (0..positions).step_by(STEPS) {
            let count = STEPS.min(positions - done);
            steps.push((Stage::Main, self.steps(buffers, scratch, pass, first, before + done, count)?));
        }
        Ok(())
    }

    /// So many steps from `first_step` on, whose input products begin at the position `inputs_first`.
    fn steps(
        &self,
        buffers: &RecurrentBuffers<'_>,
        scratch: &RecurrentScratch,
        pass: &Pass<'_>,
        inputs_first: usize,
        first_step: usize,
        count: usize,
    ) -> Result<Step> {
        let (shape, inner) = (&self.shape, &self.inner);
        let number = pass.layer * shape.directions() + pass.direction;
        let per_step = inner.tiles.all;
        let items = per_step.items as u128 * count as u128;
        let items = u32::try_from(items).map_err(|_| {
            let limit = "the largest 32-bit count of workgroups";
            Error::limit("a recurrent network", limit, items as u64, u32::MAX.into())
        })?;
        let work = Work { items, per_dispatch: per_step.per_dispatch };
        let by_items = shape.steps_first;
        // From item to item, and from position to position, in rows.
        let rows = |positions: usize| if by_items { [1, shape.batch] } else { [positions, 1] };
        let [inputs_batch, inputs_step] = rows(inner.block);
        let [out_batch, out_step] = rows(shape.steps).map(|rows| (rows * shape.width()) as u32);
        let params = Params::default().with(
            "kernel",
            RecurrentParams {
                first_work: 0,
                end_work: 0,
                tiles: per_step.items,
                unit_tiles: inner.tiles.across as u32,
                first_step: first_step as u32,
                steps: shape.steps as u32,
                is_backward: pass.direction as u32,
                batch: shape.batch as u32,
                hidden: shape.hidden as u32,
                inputs_first: inputs_first as u32,
                inputs_batch: inputs_batch as u32,
                inputs_step: inputs_step as u32,
                out_at: (pass.direction * shape.hidden) as u32,
                out_batch,
                out_step,
                state_at: (number * shape.batch * shape.hidden) as u32,
            },
        );
        let part = &buffers.weights[number];
        let bindings = Bindings::default()
            .with("inputs", whole(&scratch.inputs))
            .with("w", part.weight_hh.clone())
            .with_some("bias", part.bias_hh.clone())
            .with_some("h0", buffers.h0.clone())
            .with("out", pass.out.clone())
            .with("h_n", buffers.h_n.clone())
            .with_some("c0", buffers.c0.clone())
            .with_some("c_n", buffers.c_n.clone());
        Step::new(self.kernels.device(), &inner.step, &params, work, &bindings)
    }
}
