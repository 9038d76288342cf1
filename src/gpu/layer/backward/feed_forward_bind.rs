//! Gradients of the chunked feed-forward layer: buffers checked and bound to the plan.

use super::feed_forward::{ChunkSteps, FeedForwardBackwardPlan, part_bytes, parts};
use super::products::{RowsOf, SummedProduct};
use crate::construct::constructed;
use crate::gpu::bindings::{Access, Bindings, check_aliasing, checked_binding, optional_binding, scratch};
use crate::gpu::call::{Call, Stage};
use crate::gpu::layer::matmul::{Cut, Operands, Start};
use crate::gpu::pipeline::Step;
use crate::gpu::zeros::zeros;
use crate::{ElementType, FeedForwardShape, MatmulPlan, Result, WeightOrder};

/// The buffers of a feed-forward layer's gradients. All need `BufferUsages::STORAGE`; what is written may not be a buffer that is
/// also read. Gradients are f32, in the order of their tensors; one that is not given is not computed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FeedForwardGradBuffers<'a> {
    /// x `[rows, model_dim]`.
    pub x: wgpu::BufferBinding<'a>,
    /// W1, as in the forward pass.
    pub w1: wgpu::BufferBinding<'a>,
    /// W2, as in the forward pass.
    pub w2: wgpu::BufferBinding<'a>,
    /// The gradient of y `[rows, model_dim]`, in its type.
    pub dout: wgpu::BufferBinding<'a>,
    /// b1 `[hidden_dim]`, if and only if the shape has biases.
    pub b1: Option<wgpu::BufferBinding<'a>>,
    /// W3, if and only if the shape is gated.
    pub w3: Option<wgpu::BufferBinding<'a>>,
    /// b3 `[hidden_dim]`, if and only if the shape is gated and has biases.
    pub b3: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by x `[rows, model_dim]`, if wanted.
    pub dx: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by W1, if wanted.
    pub dw1: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by b1 `[hidden_dim]`, if there is one and it is wanted.
    pub db1: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by W2, if wanted.
    pub dw2: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by b2 `[model_dim]`, if there is one and it is wanted.
    pub db2: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by W3, if there is one and it is wanted.
    pub dw3: Option<wgpu::BufferBinding<'a>>,
    /// The gradient by b3 `[hidden_dim]`, if there is one and it is wanted.
    pub db3: Option<wgpu::BufferBinding<'a>>,
    /// [`FeedForwardBackwardPlan::scratch_bytes`], so that several layers share them; `None` allocates.
    pub scratch: Option<wgpu::BufferBinding<'a>>,
}

constructed! {
    FeedForwardGradBuffers ['a] { x: wgpu::BufferBinding<'a>, w1: wgpu::BufferBinding<'a>, w2: wgpu::BufferBinding<'a>, dout: wgpu::BufferBinding<'a> }
    { b1: wgpu::BufferBinding<'a>, w3: wgpu::BufferBinding<'a>, b3: wgpu::BufferBinding<'a>, dx: wgpu::BufferBinding<'a>, dw1: wgpu::BufferBinding<'a>, db1: wgpu::BufferBinding<'a>, dw2: wgpu::BufferBinding<'a>, db2: wgpu::BufferBinding<'a>, dw3: wgpu::BufferBinding<'a>, db3: wgpu::BufferBinding<'a>, scratch: wgpu::BufferBinding<'a> }
}

/// A buffer that is there, or not.
type Maybe<'a> = Option<wgpu::BufferBinding<'a>>;

/// Checked buffers.
struct Checked<'a> {
    x: wgpu::BufferBinding<'a>,
    w1: wgpu::BufferBinding<'a>,
    w2: wgpu::BufferBinding<'a>,
    dout: wgpu::BufferBinding<'a>,
    b1: Maybe<'a>,
    w3: Maybe<'a>,
    b3: Maybe<'a>,
    gradients: GradientBuffers<'a>,
    scratch: Scratch<'a>,
}

/// Those that are wanted.
struct GradientBuffers<'a> {
    dx: Maybe<'a>,
    dw1: Maybe<'a>,
    db1: Maybe<'a>,
    dw2: Maybe<'a>,
    db2: Maybe<'a>,
    dw3: Maybe<'a>,
    db3: Maybe<'a>,
}

/// The scratch tensors of a chunk: s, then h or ds; dh, then ds or h; g, then dg.
struct Scratch<'a> {
    argument: wgpu::BufferBinding<'a>,
    dhidden: wgpu::BufferBinding<'a>,
    gate: Maybe<'a>,
}

impl<'a> Scratch<'a> {
    fn cut(shape: &FeedForwardShape, chunk: usize, whole: &wgpu::BufferBinding<'a>) -> Self {
        let bytes = part_bytes(shape, chunk);
        let part = |n: u64| wgpu::BufferBinding {
            buffer: whole.buffer,
            offset: whole.offset + n * bytes,
            size: wgpu::BufferSize::new(bytes),
        };
        Self { argument: part(0), dhidden: part(1), gate: shape.gated.then(|| part(2)) }
    }

    /// Where ds is at last, and h.
    fn after(&self) -> [&wgpu::BufferBinding<'a>; 2] {
        match self.gate {
            Some(_) => [&self.argument, &self.dhidden],
            None => [&self.dhidden, &self.argument],
        }
    }
}

/// Rows of a chunk.
#[derive(Clone, Copy)]
struct Chunk {
    start: usize,
    rows: usize,
}

impl Chunk {
    fn is_first(self) -> bool {
        self.start == 0
    }
}

impl FeedForwardBackwardPlan {
    /// Checks the buffers and binds them: nothing is recorded yet.
    ///
    /// # Errors
    /// As [`MatmulPlan::bind`](crate::MatmulPlan::bind).
    pub fn bind(&self, buffers: FeedForwardGradBuffers<'_>) -> Result<Call> {
        let own = match (&self.steps, &buffers.scratch) {
            (Some(_), None) => {
                let what = "a chunk of the feed-forward layer's gradients";
                Some(scratch(self.kernels.device(), what, self.scratch_bytes())?)
            }
            _ => None,
        };
        let given = buffers.scratch.clone().or(own.as_ref().map(wgpu::Buffer::as_entire_buffer_binding));
        let checked = self.checked(&buffers, given)?;
        let steps = match &self.steps {
            Some(steps) => self.steps(steps, &checked)?,
            None => self.nothing(&checked.gradients)?,
        };
        Ok(Call::new("feed-forward backward", steps))
    }

    /// The buffers, each checked and cut to its tensor.
    fn checked<'a>(
        &self,
        buffers: &FeedForwardGradBuffers<'a>,
        given: Option<wgpu::BufferBinding<'a>>,
    ) -> Result<Checked<'a>> {
        let (shape, limits) = (&self.shape, self.kernels.device().limits());
        let (len, weights, hidden) = (shape.len_x(), shape.len_weight(), shape.hidden_dim);
        let (bias, gated) = (shape.bias, shape.gated);
        let input = |name, binding: &_, wanted, len| {
            optional_binding(&limits, name, binding, wanted, len, shape.weight)
        };
        let gradient = |name, binding: &Maybe<'a>, may: bool, len| {
            let wanted = may && binding.is_some();
            optional_binding(&limits, name, binding, wanted, len, ElementType::F32)
        };
        let x = checked_binding(&limits, "x", &buffers.x, len, shape.input)?;
        let w1 = checked_binding(&limits, "w1", &buffers.w1, weights, shape.weight)?;
        let w2 = checked_binding(&limits, "w2", &buffers.w2, weights, shape.weight)?;
        let dout = checked_binding(&limits, "dout", &buffers.dout, len, shape.output)?;
        let b1 = input("b1", &buffers.b1, bias, hidden)?;
        let w3 = input("w3", &buffers.w3, gated, weights)?;
        let b3 = input("b3", &buffers.b3, gated && bias, hidden)?;
        let gradients = GradientBuffers {
            dx: gradient("dx", &buffers.dx, true, len)?,
            dw1: gradient("dw1", &buffers.dw1, true, weights)?,
            db1: gradient("db1", &buffers.db1, bias, hidden)?,
            dw2: gradient("dw2", &buffers.dw2, true, weights)?,
            db2: gradient("db2", &buffers.db2, bias, shape.model_dim)?,
            dw3: gradient("dw3", &buffers.dw3, gated, weights)?,
            db3: gradient("db3", &buffers.db3, gated && bias, hidden)?,
        };
        let elements = (parts(shape) * part_bytes(shape, self.chunk)) as usize / 4;
        let has_rows = self.steps.is_some();
        let whole = optional_binding(&limits, "scratch", &given, has_rows, elements, ElementType::F32)?;
        let GradientBuffers { dx, dw1, db1, dw2, db2, dw3, db3 } = &gradients;
        let named = [
            ("x", Some(&x), Access::Read),
            ("w1", Some(&w1), Access::Read),
            ("w2", Some(&w2), Access::Read),
            ("dout", Some(&dout), Access::Read),
            ("b1", b1.as_ref(), Access::Read),
            ("w3", w3.as_ref(), Access::Read),
            ("b3", b3.as_ref(), Access::Read),
            ("dx", dx.as_ref(), Access::Write),
            ("dw1", dw1.as_ref(), Access::Write),
            ("db1", db1.as_ref(), Access::Write),
            ("dw2", dw2.as_ref(), Access::Write),
            ("db2", db2.as_ref(), Access::Write),
            ("dw3", dw3.as_ref(), Access::Write),
            ("db3", db3.as_ref(), Access::Write),
            ("scratch", whole.as_ref(), Access::Both),
        ];
        check_aliasing(&named, self.kernels.options().shared_buffers)?;
        let scratch = Scratch::cut(shape, self.chunk, whole.as_ref().unwrap_or(&x));
        Ok(Checked { x, w1, w2, dout, b1, w3, b3, gradients, scratch })
    }

    /// Gradients of no rows.
    fn nothing(&self, gradients: &GradientBuffers<'_>) -> Result<Vec<(Stage, Step)>> {
        let (weights, hidden) = (self.shape.len_weight(), self.shape.hidden_dim);
        let GradientBuffers { dx: _, dw1, db1, dw2, db2, dw3, db3 } = gradients;
        let all = [
            (dw1, weights),
            (db1, hidden),
            (dw2, weights),
            (db2, self.shape.model_dim),
            (dw3, weights),
            (db3, hidden),
        ];
        let zero = |(out, len): (&Maybe<'_>, usize)| {
            out.as_ref().map(|out| Ok((Stage::Main, zeros(&self.kernels, len, out.clone())?)))
        };
        all.into_iter().filter_map(zero).collect()
    }

    fn steps(&self, steps: &ChunkSteps, checked: &Checked<'_>) -> Result<Vec<(Stage, Step)>> {
        let mut list = vec![];
        let GradientBuffers { dx, dw1, db1, dw2, db2, dw3, db3 } = &checked.gradients;
        if let (Some(sums), Some(out)) = (&steps.output_bias, db2) {
            let rows = RowsOf { rows: self.shape.rows, at: 0, row: self.shape.model_dim as isize };
            let sums = sums.steps(&checked.dout, rows, out, true)?;
            list.extend(sums.into_iter().map(|step| (Stage::Main, step)));
        }
        if [dx, dw1, db1, dw2, dw3, db3].into_iter().all(Option::is_none) {
            return Ok(list);
        }
        for start in (0..self.shape.rows).step_by(self.chunk) {
            let chunk = Chunk { start, rows: self.chunk.min(self.shape.rows - start) };
            let prepared = self.prepared(steps, checked, chunk)?;
            list.extend(prepared.into_iter().map(|step| (Stage::Prepare, step)));
            let main = self.of_weights(steps, checked, chunk)?;
            list.extend(main.into_iter().map(|step| (Stage::Main, step)));
            let main = self.of_x(steps, checked, chunk)?;
            list.extend(main.into_iter().map(|step| (Stage::Main, step)));
        }
        Ok(list)
    }

    /// h, ds and dg of a chunk.
    fn prepared(&self, steps: &ChunkSteps, checked: &Checked<'_>, chunk: Chunk) -> Result<Vec<Step>> {
        let scratch = &checked.scratch;
        let first = Operands {
            a: checked.x.clone(),
            b: checked.w1.clone(),
            bias: checked.b1.clone(),
            residual: None,
            out: scratch.argument.clone(),
        };
        let rows_of = |plan: &MatmulPlan| Cut {
            rows: chunk.rows,
            a: Start::row(chunk.start),
            ..Cut::all(plan.shape())
        };
        let mut list = vec![steps.argument.step(&first, rows_of(&steps.argument))?];
        if let (Some(w3), Some(gate)) = (&checked.w3, &scratch.gate) {
            let gate = Operands { b: w3.clone(), bias: checked.b3.clone(), out: gate.clone(), ..first };
            list.push(steps.argument.step(&gate, rows_of(&steps.argument))?);
        }
        let dhidden = Operands {
            a: checked.dout.clone(),
            b: checked.w2.clone(),
            bias: None,
            residual: None,
            out: scratch.dhidden.clone(),
        };
        list.push(steps.dhidden.step(&dhidden, rows_of(&steps.dhidden))?);
        let bindings = Bindings::default()
            .with("x", scratch.argument.clone())
            .with("dout", scratch.dhidden.clone())
            .with_some("gate", scratch.gate.clone());
        list.push(steps.slopes.step(&self.kernels, chunk.rows * self.shape.hidden_dim, &bindings)?);
        Ok(list)
    }

    /// What a chunk adds to the gradients of weights and biases.
    fn of_weights(&self, steps: &ChunkSteps, checked: &Checked<'_>, chunk: Chunk) -> Result<Vec<Step>> {
        let GradientBuffers { dw1, db1, dw2, dw3, db3, .. } = &checked.gradients;
        let [ds, hidden] = checked.scratch.after();
        let rows = RowsOf { rows: chunk.rows, at: 0, row: self.shape.hidden_dim as isize };
        let mut list = vec![];
        let of_hidden = [(Some(ds), dw1, db1), (checked.scratch.gate.as_ref(), dw3, db3)];
        for (slopes, dw, db) in of_hidden {
            let Some(slopes) = slopes else { continue };
            if let Some(out) = dw {
                let sides = [(&checked.x, chunk.start), (slopes, 0)];
                list.push(self.of_weight(&steps.into_hidden, sides, out, chunk)?);
            }
            if let (Some(sums), Some(out)) = (&steps.hidden_bias, db) {
                list.extend(sums.steps(slopes, rows, out, chunk.is_first())?);
            }
        }
        if let Some(out) = dw2 {
            let sides = [(hidden, 0), (&checked.dout, chunk.start)];
            list.push(self.of_weight(&steps.out_of_hidden, sides, out, chunk)?);
        }
        Ok(list)
    }

    /// left^T right, each from its row on, or the transpose as the weight is stored.
    fn of_weight(
        &self,
        product: &SummedProduct,
        [left, right]: [(&wgpu::BufferBinding<'_>, usize); 2],
        out: &wgpu::BufferBinding<'_>,
        chunk: Chunk,
    ) -> Result<Step> {
        let (a, b) = match self.shape.weights {
            WeightOrder::InOut => (left, right),
            WeightOrder::OutIn => (right, left),
        };
        let operands =
            Operands { a: a.0.clone(), b: b.0.clone(), bias: None, residual: None, out: out.clone() };
        let cut = Cut { inner: chunk.rows, a: Start::row(a.1), b: Start::row(b.1), ..product.whole() };
        product.step(&operands, cut, chunk.is_first())
    }

    /// The rows of dx.
    fn of_x(&self, steps: &ChunkSteps, checked: &Checked<'_>, chunk: Chunk) -> Result<Vec<Step>> {
        let Some(dx) = &checked.gradients.dx else { return Ok(vec![]) };
        let cut = Cut { rows: chunk.rows, out: Start::row(chunk.start), ..steps.dx.whole() };
        let [ds, _] = checked.scratch.after();
        let first =
            Operands { a: ds.clone(), b: checked.w1.clone(), bias: None, residual: None, out: dx.clone() };
        let mut list = vec![steps.dx.step(&first, cut, true)?];
        if let (Some(w3), Some(dgate)) = (&checked.w3, &checked.scratch.gate) {
            let second = Operands { a: dgate.clone(), b: w3.clone(), ..first };
            list.push(steps.dx.step(&second, cut, false)?);
        }
        Ok(list)
    }
}
