//! A layer around attention: what a call of it is made of, each step compared by what the step before it left.

use super::{Bytes, Subject, drawn, joined, sampled_rows, verification};
use crate::call::{checked, poisoned, read};
use crate::cases::BlockShape;
use crate::check::{Against, check};
use crate::record::{Cost, Verification};
use anyhow::Result;
use wgpu::{Buffer, BufferBinding};
use wgpu_attention::reference::layer::{self, Bounded, FeedForwardInputs, MatmulInputs};
use wgpu_attention::reference::{Got, Rows};
use wgpu_attention::{
    Activation, AnyPattern, Attention, AttentionBuffers, BlockGrid, Call, Combine, ElementType,
    FeedForwardBuffers, FeedForwardShape, Gpu, Inputs, KernelPath, Layout, Layouts, MatmulBuffers,
    MatmulShape, Parts, Strides,
};

/// The shapes of the steps.
struct Steps {
    /// x W: q, k and v of all heads, one behind the other in a row.
    qkv: MatmulShape,
    attention: Attention,
    /// a W + x.
    merged: MatmulShape,
    /// FF(h) + h.
    feed_forward: FeedForwardShape,
}

impl Steps {
    fn new(shape: &BlockShape) -> Self {
        let (len, width) = (shape.len, shape.model_dim);
        let head_dim = (width / shape.heads) as isize;
        let row = 3 * width as isize;
        let of =
            |n: usize| Layout::Strided(Strides::new(len as isize * row, head_dim, row).offset(n * width));
        let layouts = Layouts::all(Layout::Blhd).q(of(0)).k(of(1)).v(of(2));
        Self {
            qkv: MatmulShape::new(len, width, 3 * width),
            attention: shape.attention().layouts(layouts),
            merged: MatmulShape::new(len, width, width).combine(Combine::Add),
            feed_forward: FeedForwardShape::new(len, width, shape.hidden_dim, Activation::GeluTanh)
                .residual(true),
        }
    }
}

/// A tensor in f64, and on the device.
type Drawn = (Vec<f64>, Buffer);

/// The weights, so that rows keep their size.
struct Weights {
    qkv: Drawn,
    merged: Drawn,
    w1: Drawn,
    w2: Drawn,
}

impl Weights {
    async fn new(gpu: &Gpu, steps: &Steps) -> Result<Self> {
        let weight = async |name, stream, rows: usize, columns: usize| {
            let size = (rows as f64).sqrt().recip();
            super::drawn_of_size(gpu, name, stream, rows * columns, ElementType::F32, size).await
        };
        let FeedForwardShape { model_dim, hidden_dim, .. } = steps.feed_forward;
        Ok(Self {
            qkv: weight("w_qkv", 1, model_dim, 3 * model_dim).await?,
            merged: weight("w_out", 2, model_dim, model_dim).await?,
            w1: weight("w1", 3, model_dim, hidden_dim).await?,
            w2: weight("w2", 4, hidden_dim, model_dim).await?,
        })
    }

    fn len(&self) -> usize {
        [&self.qkv, &self.merged, &self.w1, &self.w2].map(|(values, _)| values.len()).iter().sum()
    }
}

/// What the steps leave: q, k and v; attention's rows; the rows of the residual; the layer's.
struct Left {
    qkv: Buffer,
    attended: Buffer,
    merged: Buffer,
    out: Buffer,
}

impl Left {
    async fn new(gpu: &Gpu, shape: &BlockShape) -> Result<Self> {
        let rows = async |name, width: usize| poisoned(gpu, name, shape.len * width, ElementType::F32).await;
        Ok(Self {
            qkv: rows("qkv", 3 * shape.model_dim).await?,
            attended: rows("attended", shape.model_dim).await?,
            merged: rows("merged", shape.model_dim).await?,
            out: rows("out", shape.model_dim).await?,
        })
    }
}

fn whole(buffer: &Buffer) -> BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

pub(super) async fn prepare<'g>(gpu: &'g Gpu, shape: &BlockShape) -> Result<Subject<'g>> {
    let (steps, pattern, shape) = (Steps::new(shape), shape.pattern.parse()?, shape.clone());
    let x = drawn(gpu, "x", 0, shape.len * shape.model_dim, ElementType::F32).await?;
    let (weights, left) = (Weights::new(gpu, &steps).await?, Left::new(gpu, &shape).await?);
    let parts = Parts::lower(&pattern, BlockGrid::from(&steps.attention.shape))?;
    let kernels = gpu.kernels();
    let (device, attention) = (gpu.device(), &steps.attention);
    let [qkv, merged] = [&steps.qkv, &steps.merged].map(|shape| kernels.matmul(shape));
    let attend = checked(device, "plan", || kernels.attention_parts(attention, &parts)).await??;
    let feed_forward = checked(device, "plan", || kernels.feed_forward(&steps.feed_forward)).await??;
    let (qkv, merged, path) = (qkv?, merged?, attend.path().path);
    let from = whole(&left.qkv);
    let products = MatmulBuffers::new(whole(&left.attended), whole(&weights.merged.1), whole(&left.merged));
    let layer = FeedForwardBuffers::new(
        whole(&left.merged),
        whole(&weights.w1.1),
        whole(&weights.w2.1),
        whole(&left.out),
    );
    let calls = [
        qkv.bind(MatmulBuffers::new(whole(&x.1), whole(&weights.qkv.1), from.clone()))?,
        attend.bind(AttentionBuffers::new(from.clone(), from.clone(), from, whole(&left.attended)))?,
        merged.bind(products.residual(whole(&x.1)))?,
        feed_forward.bind(layer.residual(whole(&left.merged)))?,
    ];
    let explained = attend.explain();
    let rest = steps.qkv.flops() + steps.merged.flops() + steps.feed_forward.flops();
    let bytes = Bytes {
        tensors: 4 * (2 * x.0.len() + weights.len()) as u64,
        mask: explained.mask_bytes,
        scratch: explained.scratch_bytes + feed_forward.scratch_bytes() + 4 * 5 * x.0.len() as u64,
    };
    let cost = Cost {
        useful_flop: attention.flops(explained.kept) + rest,
        executed_flop: explained.flops + rest,
        kept_pairs: Some(explained.kept),
        visited_pairs: Some(explained.visited),
        block_waste: Some(parts.waste()),
        ..Cost::new(0.0, bytes, calls.iter().map(Call::dispatches).sum())
    };
    let compared = Compared { gpu, shape, steps, x: x.0, weights, left };
    Ok(Subject {
        path: path.to_string(),
        shaders: vec![],
        cost,
        gpu,
        dispatch: Box::new(move |pass| calls.iter().for_each(|call| call.dispatch(pass))),
        verify: Box::pin(async move { compared.all(&pattern, (&parts, path)).await }),
    })
}

/// What is compared: the steps, their inputs, what they left.
struct Compared<'g> {
    gpu: &'g Gpu,
    shape: BlockShape,
    steps: Steps,
    x: Vec<f64>,
    weights: Weights,
    left: Left,
}

impl Compared<'_> {
    async fn all(&self, pattern: &AnyPattern, by: (&Parts, KernelPath)) -> Result<Verification> {
        let (width, hidden) = (self.shape.model_dim, self.shape.hidden_dim);
        let rows = sampled_rows(self.shape.len, width * (4 * width + 2 * hidden));
        let pick = |values: &[f64], width: usize| {
            let of_row = |row: &usize| values[row * width..][..width].iter().copied();
            Bounded::exact(&rows.iter().flat_map(of_row).collect::<Vec<f64>>())
        };
        let read = async |name, from, width: usize| -> Result<Vec<f32>> {
            read(self.gpu, name, from, self.shape.len * width).await
        };
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let count = rows.len();
        let of = |mut shape: MatmulShape| {
            shape.rows = count;
            shape
        };
        let x = pick(&self.x, width);

        let qkv = read("qkv", &self.left.qkv, 3 * width).await?;
        let b = Bounded::exact(&self.weights.qkv.0);
        let want =
            layer::matmul(&of(self.steps.qkv), &MatmulInputs { a: &x, b: &b, bias: None, other: None })?;
        let mut all = self.judged("q, k, v", &want, &pick(&wide(&qkv), 3 * width), &rows);

        let attended = read("attended", &self.left.attended, width).await?;
        let inputs = Inputs::new(&qkv, &qkv, &qkv);
        let sample = Rows::Sample { count, seed: 0 };
        let report = check(
            &self.steps.attention,
            &inputs,
            (pattern as _, Some(by)),
            Got::new(&attended),
            sample,
            Against::Reference,
        )?;
        all = joined(Some(all), verification(&report, self.shape.len));

        let merged = wide(&read("merged", &self.left.merged, width).await?);
        let (a, b) = (pick(&wide(&attended), width), Bounded::exact(&self.weights.merged.0));
        let inputs = MatmulInputs { a: &a, b: &b, bias: None, other: Some(&x) };
        let want = layer::matmul(&of(self.steps.merged), &inputs)?;
        let merged = pick(&merged, width);
        all = joined(Some(all), self.judged("merged", &want, &merged, &rows));

        let out = wide(&read("out", &self.left.out, width).await?);
        let [w1, w2] = [&self.weights.w1.0, &self.weights.w2.0].map(|w| Bounded::exact(w));
        let mut shape = self.steps.feed_forward.chunk(None);
        shape.rows = count;
        let (x, residual) = (&merged, Some(&merged));
        let inputs =
            FeedForwardInputs { x, w1: &w1, b1: None, w3: None, b3: None, w2: &w2, b2: None, residual };
        let want = layer::feed_forward(&shape, &inputs)?;
        all = joined(Some(all), self.judged("out", &want, &pick(&out, width), &rows));
        // The same rows of four tensors, and as many of attention's.
        Ok(Verification { rows: count, of_rows: self.shape.len, ..all })
    }

    /// Rows of one tensor.
    fn judged(&self, name: &str, want: &Bounded, got: &Bounded, rows: &[usize]) -> Verification {
        let comparison = want.compare(got.out.iter().copied(), 0.0);
        let finite = |x: f64| x.is_finite().then_some(x);
        let (worst, width) = (comparison.worst, want.out.len() / rows.len());
        Verification {
            pass: comparison.pass && comparison.unspecified == 0 && comparison.elements > 0,
            rows: rows.len(),
            of_rows: self.shape.len,
            worst_ratio: worst.and_then(|worst| finite(worst.ratio)),
            worst_error: worst.and_then(|worst| finite((worst.got - worst.expected).abs())),
            worst_bound: worst.and_then(|worst| finite(worst.bound)),
            worst_at: worst
                .map(|worst| format!("{name}[{}, {}]", rows[worst.index / width], worst.index % width)),
        }
    }
}
