//! The kernels around attention. Their rows do not depend on each other, so that the reference computes the compared ones alone.

use super::{Bytes, Subject, drawn, read, sampled_rows};
use crate::call::{buffer, checked, poisoned};
use crate::cases::Work;
use crate::record::{Cost, Verification};
use anyhow::{Result, bail};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::layer::{self, Bounded, FeedForwardInputs, MatmulInputs};
use wgpu_attention::{
    AddShape, Call, Counter, ElementType, EmbedShape, FeedForwardBuffers, FeedForwardShape, Gpu,
    IntegerFormat, KernelPath, Kernels, MatmulBuffers, MatmulShape, NormBuffers, NormKind, NormShape,
    QuantizeRule, QuantizeShape, RotaryBuffers, RotaryShape, SoftmaxShape, rotary_tables,
};

pub(super) async fn prepare<'g>(gpu: &'g Gpu, kernels: &Kernels, work: &Work) -> Result<Subject<'g>> {
    match work {
        Work::Matmul(shape) => matmul(gpu, kernels, *shape).await,
        Work::FeedForward(shape) => feed_forward(gpu, *shape).await,
        Work::Norm(shape) => norm(gpu, *shape).await,
        Work::Softmax(shape) => softmax(gpu, *shape).await,
        Work::Rotary(shape) => rotary(gpu, *shape).await,
        Work::Embed(shape) => embed(gpu, *shape).await,
        Work::Add(shape) => add(gpu, *shape).await,
        Work::Attention { .. }
        | Work::Backward { .. }
        | Work::Lsh { .. }
        | Work::Linear { .. }
        | Work::Linformer { .. }
        | Work::Decode(_)
        | Work::Block(_)
        | Work::Recurrent(_) => {
            bail!("neither attention nor a recurrent network is a kernel around attention")
        }
    }
}

/// The output of a kernel over rows, and which of them are compared.
struct Output<'g> {
    gpu: &'g Gpu,
    buffer: Buffer,
    rows: usize,
    width: usize,
    element: ElementType,
    compared: Vec<usize>,
    /// Of products, the tile's; the other kernels have one.
    path: KernelPath,
    /// Of products of floats.
    shaders: Vec<String>,
}

impl<'g> Output<'g> {
    /// `row_cost` is what the reference computes for a row.
    async fn new(
        gpu: &'g Gpu,
        [rows, width]: [usize; 2],
        element: ElementType,
        row_cost: usize,
    ) -> Result<Self> {
        let buffer = poisoned(gpu, "out", rows * width, element).await?;
        let compared = sampled_rows(rows, row_cost);
        Ok(Self { gpu, buffer, rows, width, element, compared, path: KernelPath::Scalar, shaders: vec![] })
    }

    /// Those rows of a tensor.
    fn pick(&self, values: &[f64], width: usize) -> Bounded {
        let picked: Vec<f64> =
            self.compared.iter().flat_map(|row| &values[row * width..][..width]).copied().collect();
        Bounded::exact(&picked)
    }

    /// Compares those rows.
    async fn compare(&self, expected: &Bounded) -> Result<Verification> {
        let got = read(self.gpu, "out", &self.buffer, self.rows * self.width, self.element).await?;
        let comparison = expected.compare(self.pick(&got, self.width).out, 0.0);
        let finite = |x: f64| x.is_finite().then_some(x);
        let worst = comparison.worst;
        Ok(Verification {
            pass: comparison.pass && comparison.elements > 0,
            rows: self.compared.len(),
            of_rows: self.rows,
            worst_ratio: worst.and_then(|worst| finite(worst.ratio)),
            worst_error: worst.and_then(|worst| finite((worst.got - worst.expected).abs())),
            worst_bound: worst.and_then(|worst| finite(worst.bound)),
            worst_at: worst.map(|worst| {
                format!("out[{}, {}]", self.compared[worst.index / self.width], worst.index % self.width)
            }),
        })
    }

    fn subject(
        self,
        call: Call,
        flop: f64,
        bytes: Bytes,
        expected: impl FnOnce(&Self) -> Result<Bounded> + 'g,
    ) -> Subject<'g> {
        Subject {
            path: self.path.to_string(),
            shaders: self.shaders.clone(),
            cost: Cost::new(flop, bytes, call.dispatches()),
            gpu: self.gpu,
            dispatch: Box::new(move |pass| call.dispatch(pass)),
            verify: Box::pin(async move {
                let expected = expected(&self)?;
                self.compare(&expected).await
            }),
        }
    }
}

fn whole(buffer: &Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

/// Of tensors of one element type.
fn tensors(element: ElementType, lens: &[usize]) -> Bytes {
    Bytes { tensors: (lens.iter().sum::<usize>() * element.size_bytes()) as u64, ..Default::default() }
}

async fn matmul<'g>(gpu: &'g Gpu, kernels: &Kernels, shape: MatmulShape) -> Result<Subject<'g>> {
    if let Some(format) = shape.integers {
        return integer_weights(gpu, shape, format).await;
    }
    let plan = checked(gpu.device(), "plan", || kernels.matmul(&shape)).await??;
    let (a, a_buffer) = drawn(gpu, "a", 0, shape.len_a(), shape.input).await?;
    let (b, b_buffer) = drawn(gpu, "b", 1, shape.len_b(), shape.weight).await?;
    let size = [shape.rows, shape.columns];
    let mut out = Output::new(gpu, size, shape.output, shape.inner * shape.columns).await?;
    (out.path, out.shaders) = (plan.tile().path(), vec![plan.shader()]);
    let buffers = MatmulBuffers::new(whole(&a_buffer), whole(&b_buffer), whole(&out.buffer));
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let bytes = tensors(shape.input, &[shape.len_a(), shape.len_b(), shape.len_out()]);
    Ok(out.subject(call, shape.flops(), bytes, move |out| {
        let mut rows = shape;
        rows.rows = out.compared.len();
        let (a, b) = (out.pick(&a, shape.inner), Bounded::exact(&b));
        Ok(layer::matmul(&rows, &MatmulInputs { a: &a, b: &b, bias: None, other: None })?)
    }))
}

/// x W^T of weights that were quantised on the host.
async fn integer_weights(gpu: &Gpu, shape: MatmulShape, format: IntegerFormat) -> Result<Subject<'_>> {
    let rule = if format.zero_points { QuantizeRule::Range } else { QuantizeRule::Symmetric };
    let plan = checked(gpu.device(), "plan", || gpu.kernels().matmul(&shape)).await??;
    let (a, a_buffer) = drawn(gpu, "a", 0, shape.len_a(), shape.input).await?;
    let weight = Counter::new(1, 1);
    let weight: Vec<f32> = (0..shape.len_b() as u64).map(|n| weight.normal(n) as f32).collect();
    let w = QuantizeShape::new(shape.columns, shape.inner, format, rule).quantize(&weight)?;
    let words = buffer(gpu, "words", bytemuck::cast_slice(&w.words), BufferUsages::STORAGE).await?;
    let scales = buffer(gpu, "scales", bytemuck::cast_slice(&w.scales), BufferUsages::STORAGE).await?;
    let zero_points = match format.zero_points {
        true => Some(
            buffer(gpu, "zero points", bytemuck::cast_slice(&w.zero_points), BufferUsages::STORAGE).await?,
        ),
        false => None,
    };
    let size = [shape.rows, shape.columns];
    let mut out = Output::new(gpu, size, shape.output, shape.inner * shape.columns).await?;
    out.path = plan.tile().path();
    let buffers = MatmulBuffers::new(whole(&a_buffer), whole(&words), whole(&out.buffer))
        .scales(whole(&scales))
        .zero_points(zero_points.as_ref().map(whole));
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let mut bytes = tensors(shape.input, &[shape.len_a(), shape.len_out()]);
    bytes.tensors += format.bytes(shape.columns, shape.inner) as u64;
    Ok(out.subject(call, shape.flops(), bytes, move |out| {
        let mut rows = shape;
        rows.rows = out.compared.len();
        let (a, b) = (out.pick(&a, shape.inner), layer::dequantized(&w)?);
        Ok(layer::matmul(&rows, &MatmulInputs { a: &a, b: &b, bias: None, other: None })?)
    }))
}

async fn feed_forward(gpu: &Gpu, shape: FeedForwardShape) -> Result<Subject<'_>> {
    let plan = checked(gpu.device(), "plan", || gpu.kernels().feed_forward(&shape)).await??;
    let (x, x_buffer) = drawn(gpu, "x", 0, shape.len_x(), shape.input).await?;
    let weight = |name, stream| drawn(gpu, name, stream, shape.len_weight(), shape.weight);
    let ((w1, w1_buffer), (w2, w2_buffer)) = (weight("w1", 1).await?, weight("w2", 2).await?);
    let (w3, w3_buffer) = if shape.gated { Some(weight("w3", 3).await?) } else { None }.unzip();
    let products = if shape.gated { 3 } else { 2 };
    let size = [shape.rows, shape.model_dim];
    let mut out = Output::new(gpu, size, shape.output, products * shape.len_weight()).await?;
    out.path = plan.path();
    let [x_whole, w1_whole, w2_whole, out_whole] =
        [&x_buffer, &w1_buffer, &w2_buffer, &out.buffer].map(whole);
    let buffers = FeedForwardBuffers::new(x_whole, w1_whole, w2_whole, out_whole);
    let buffers = buffers.w3(w3_buffer.as_ref().map(whole));
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let weights = products * shape.len_weight();
    let bytes =
        Bytes { scratch: plan.scratch_bytes(), ..tensors(shape.input, &[2 * shape.len_x(), weights]) };
    Ok(out.subject(call, shape.flops(), bytes, move |out| {
        let mut rows = shape.chunk(None);
        rows.rows = out.compared.len();
        let x = out.pick(&x, shape.model_dim);
        let [w1, w2] = [w1, w2].map(|w| Bounded::exact(&w));
        let w3 = w3.map(|w| Bounded::exact(&w));
        let (w1, w2, w3) = (&w1, &w2, w3.as_ref());
        let inputs = FeedForwardInputs { x: &x, w1, b1: None, w3, b3: None, w2, b2: None, residual: None };
        Ok(layer::feed_forward(&rows, &inputs)?)
    }))
}

async fn norm(gpu: &Gpu, shape: NormShape) -> Result<Subject<'_>> {
    let plan = checked(gpu.device(), "plan", || gpu.kernels().norm(&shape)).await??;
    let (x, x_buffer) = drawn(gpu, "x", 0, shape.len_x(), shape.input).await?;
    let (weight, weight_buffer) = drawn(gpu, "weight", 1, shape.width, shape.weight).await?;
    let bias = match shape.bias {
        true => Some(drawn(gpu, "bias", 2, shape.width, shape.weight).await?),
        false => None,
    };
    let (bias, bias_buffer) = bias.unzip();
    let out = Output::new(gpu, [shape.rows, shape.width], shape.output, 16 * shape.width).await?;
    let buffers = NormBuffers::new(whole(&x_buffer), whole(&weight_buffer), whole(&out.buffer));
    let buffers = buffers.bias(bias_buffer.as_ref().map(whole));
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let vectors = if shape.bias { 2 } else { 1 };
    let bytes = tensors(shape.input, &[shape.len_x(), shape.len_out(), vectors * shape.width]);
    let flop = if shape.kind == NormKind::Layer { 8.0 } else { 5.0 } * shape.len_x() as f64;
    Ok(out.subject(call, flop, bytes, move |out| {
        let mut rows = shape;
        rows.rows = out.compared.len();
        let (x, weight) = (out.pick(&x, shape.width), Bounded::exact(&weight));
        let bias = bias.map(|bias| Bounded::exact(&bias));
        Ok(layer::norm(&rows, &x, &weight, bias.as_ref())?)
    }))
}

async fn softmax(gpu: &Gpu, shape: SoftmaxShape) -> Result<Subject<'_>> {
    let plan = checked(gpu.device(), "plan", || gpu.kernels().softmax(&shape)).await??;
    let (x, x_buffer) = drawn(gpu, "x", 0, shape.len_x(), shape.input).await?;
    let out = Output::new(gpu, [shape.rows, shape.width], shape.output, 16 * shape.width).await?;
    let call = checked(gpu.device(), "bind", || plan.bind(whole(&x_buffer), whole(&out.buffer))).await??;
    let bytes = tensors(shape.input, &[shape.len_x(), shape.len_out()]);
    Ok(out.subject(call, 5.0 * shape.len_x() as f64, bytes, move |out| {
        let mut rows = shape;
        rows.rows = out.compared.len();
        Ok(layer::softmax(&rows, &out.pick(&x, shape.width))?)
    }))
}

async fn rotary(gpu: &Gpu, shape: RotaryShape) -> Result<Subject<'_>> {
    let plan = checked(gpu.device(), "plan", || gpu.kernels().rotary(&shape)).await??;
    let (x, x_buffer) = drawn(gpu, "x", 0, shape.len_x(), shape.input).await?;
    let tables = rotary_tables(shape.len, shape.rotary_dim, 10_000.0);
    let upload = async |name, table: &[f32]| {
        buffer(gpu, name, bytemuck::cast_slice(table), BufferUsages::STORAGE).await
    };
    let (cos_buffer, sin_buffer) = (upload("cos", &tables[0]).await?, upload("sin", &tables[1]).await?);
    let rows = shape.batch * shape.heads * shape.len;
    let out = Output::new(gpu, [rows, shape.head_dim], shape.output, 8 * shape.head_dim).await?;
    let [x_whole, cos, sin, out_whole] = [&x_buffer, &cos_buffer, &sin_buffer, &out.buffer].map(whole);
    let buffers = RotaryBuffers::new(x_whole, cos, sin, out_whole);
    let call = checked(gpu.device(), "bind", || plan.bind(buffers)).await??;
    let mut bytes = tensors(shape.input, &[shape.len_x(), shape.len_out()]);
    bytes.tensors += 8 * shape.len_table() as u64;
    Ok(out.subject(call, 3.0 * shape.len_x() as f64, bytes, move |out| {
        // One head, in which each compared row is a position of its own, with its row of the tables.
        let half = shape.rotary_dim / 2;
        let mut picked = shape;
        (picked.batch, picked.heads, picked.len) = (1, 1, out.compared.len());
        let [cos, sin] = tables.map(|table| {
            let rows = out.compared.iter().flat_map(|row| &table[row % shape.len * half..][..half]);
            Bounded::exact(&rows.copied().collect::<Vec<f32>>())
        });
        Ok(layer::rotary(&picked, &out.pick(&x, shape.head_dim), &cos, &sin)?)
    }))
}

async fn embed(gpu: &Gpu, shape: EmbedShape) -> Result<Subject<'_>> {
    let plan = checked(gpu.device(), "plan", || gpu.kernels().embed(&shape)).await??;
    let (table, table_buffer) = drawn(gpu, "table", 0, shape.len_table(), shape.table).await?;
    // Scattered over the table: 2654435761 is odd and far from small fractions of 2^32.
    let ids: Vec<u32> =
        (0..shape.rows as u32).map(|row| row.wrapping_mul(2_654_435_761) % shape.table_rows as u32).collect();
    let ids_buffer = buffer(gpu, "ids", bytemuck::cast_slice(&ids), BufferUsages::STORAGE).await?;
    let out = Output::new(gpu, [shape.rows, shape.width], shape.output, 8 * shape.width).await?;
    let call = checked(gpu.device(), "bind", || {
        plan.bind(whole(&ids_buffer), whole(&table_buffer), whole(&out.buffer))
    })
    .await??;
    // Of the table only the rows that are looked up move.
    let looked_up = std::collections::HashSet::<_>::from_iter(&ids).len() * shape.width;
    let mut bytes = tensors(shape.table, &[looked_up, shape.len_out()]);
    bytes.tensors += 4 * shape.rows as u64;
    let unread = ((shape.len_table() - looked_up) * shape.table.size_bytes()) as u64;
    let mut subject = out.subject(call, 0.0, bytes, move |out| {
        let mut rows = shape;
        rows.rows = out.compared.len();
        let ids: Vec<u32> = out.compared.iter().map(|&row| ids[row]).collect();
        Ok(layer::embed(&rows, &ids, &Bounded::exact(&table), None)?)
    });
    subject.cost.memory_bytes += unread;
    Ok(subject)
}

async fn add(gpu: &Gpu, shape: AddShape) -> Result<Subject<'_>> {
    let plan = checked(gpu.device(), "plan", || gpu.kernels().add(&shape)).await??;
    let (x, x_buffer) = drawn(gpu, "x", 0, shape.len(), shape.input).await?;
    let (other, other_buffer) = drawn(gpu, "other", 1, shape.len(), shape.other).await?;
    let out = Output::new(gpu, [shape.rows, shape.width], shape.output, 8 * shape.width).await?;
    let call = checked(gpu.device(), "bind", || {
        plan.bind(whole(&x_buffer), whole(&other_buffer), whole(&out.buffer))
    })
    .await??;
    let bytes = tensors(shape.input, &[3 * shape.len()]);
    Ok(out.subject(call, shape.len() as f64, bytes, move |out| {
        Ok(layer::add(&out.pick(&x, shape.width), &out.pick(&other, shape.width), shape.output)?)
    }))
}
