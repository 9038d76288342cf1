//! A case on a device: its tensors uploaded, its outputs poisoned, ready to be verified and then timed.
//!
//! | file | what |
//! |---|---|
//! | `attention.rs` | every pattern |
//! | `backward.rs` | its gradients |
//! | `lsh.rs`, `lsh_backward.rs` | LSH attention, its gradients |
//! | `decode.rs` | decoding with a key cache |
//! | `linear.rs`, `linformer.rs`, `linear_backward.rs`, `linformer_backward.rs` | linear attention, Linformer, their gradients |
//! | `heads.rs` | a few heads of a long call, which the reference takes by themselves |
//! | `layer.rs` | the kernels around attention |
//! | `block.rs` | attention with the products around it and the feed-forward layer |
//! | `recurrent.rs` | recurrent networks |

mod attention;
mod backward;
mod block;
mod decode;
mod heads;
mod layer;
mod linear;
mod linear_backward;
mod linformer;
mod linformer_backward;
mod lsh;
mod lsh_backward;
mod recurrent;

use crate::call::{buffer, submit};
use crate::cases::{Spec, Work};
use crate::record::{Cost, Direction, Model, Verification};
use crate::typed;
use anyhow::Result;
use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use wgpu::{Buffer, BufferUsages, ComputePass};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, Kind, Report, Tensors, random};
use wgpu_attention::{Attention, AttentionShape, Call, Counter, Element, ElementType, Error, Gpu};

/// A case that is ready.
pub struct Subject<'g> {
    /// The kernel path that the plan chose.
    pub path: String,
    /// The names of the shaders that a call runs, of the kernels whose speed is predicted: attention, its gradients, products.
    pub shaders: Vec<String>,
    /// What a call costs.
    pub cost: Cost,
    gpu: &'g Gpu,
    dispatch: Dispatch<'g>,
    verify: Verify<'g>,
}

impl<'g> Subject<'g> {
    /// A kernel that has one path, by these calls; the shaders of those are not predicted.
    fn on_one_path(
        gpu: &'g Gpu,
        cost: Cost,
        calls: Vec<Call>,
        verify: impl Future<Output = Result<Verification>> + 'g,
    ) -> Self {
        Self {
            path: "scalar".into(),
            shaders: vec![],
            cost,
            gpu,
            dispatch: Box::new(move |pass| calls.iter().for_each(|call| call.dispatch(pass))),
            verify: Box::pin(verify),
        }
    }
}

/// Records one call.
type Dispatch<'g> = Box<dyn Fn(&mut ComputePass<'_>) + 'g>;
/// Compares what the first call wrote; the tensors on the host go with it.
type Verify<'g> = Pin<Box<dyn Future<Output = Result<Verification>> + 'g>>;

/// Bytes of each kind of tensor; [`Cost`] adds up.
#[derive(Default)]
struct Bytes {
    tensors: u64,
    mask: u64,
    scratch: u64,
}

/// How the figures of [`Cost`] and of the rates are counted.
pub fn models() -> Vec<Model> {
    let models = [
        (
            "attention: useful_flop",
            "2 (d + dv) for each pair that the pattern keeps; exp and division not counted",
        ),
        ("attention: executed_flop", "2 (d + dv) for each pair in the blocks that the kernel visits"),
        (
            "attention, backward: useful_flop",
            "6 d + 4 dv for each pair that the pattern keeps: five products, one of them made again from the forward pass",
        ),
        (
            "attention, backward: executed_flop",
            "8 d + 6 dv for each pair in the visited blocks: the passes over queries and over keys each make two of the products",
        ),
        (
            "attention, backward-dq, backward-dk-dv",
            "the pass over queries alone, 4 d + 2 dv for each pair; the pass over keys alone, 4 d + 4 dv",
        ),
        (
            "relative rows",
            "2 d more for each pair, of the rows that it uses and no others; backward 4 d more that are useful and 6 d that are executed",
        ),
        (
            "other terms of a score",
            "not counted: what is done to a score, as exp, and what is done once for a query (segments, q + u) or for a weight (dropout)",
        ),
        (
            "lsh: useful_flop = executed_flop",
            "2 (d + dv) for each pair of places in chunks that see each other, and 2 d for each projection of the hash",
        ),
        (
            "lsh, backward: useful_flop",
            "6 d + 4 dv for each pair of places in chunks that see each other, and the hash once more; executed_flop: 8 d + 6 dv",
        ),
        (
            "linear, linformer, backward: useful_flop = executed_flop",
            "the forward pass once more, and the products of the gradients; both: a forward pass beside",
        ),
        (
            "linear: useful_flop = executed_flop",
            "2 m d for each row that is projected, 2 m dv for each key and each query, and causal 2 (m + dv) for each pair within a chunk of 64",
        ),
        (
            "linformer: useful_flop = executed_flop",
            "2 k Lk (d + dv) for each key head, and 2 (d + dv) for each pair of a query and a projected row",
        ),
        (
            "decode: useful_flop = executed_flop",
            "2 (d + dv) for each query and each key of its sequence; bytes are those of the whole cache, with the scales of int8",
        ),
        ("matmul, feed_forward, recurrent: useful_flop", "2 M K N for each product"),
        ("block", "the products, the attention and the feed-forward layer that it is made of"),
        (
            "layer_norm, rms_norm, softmax, rotary, embed, add: useful_flop",
            "8, 5, 5, 3, 0, 1 for each element",
        ),
        ("bytes", "every tensor and mask table once, however often it is read"),
        ("memory_bytes", "tensors, mask tables and scratch on the device"),
        ("ceiling", "work / least time of its samples; the larger of before and after the cases counts"),
        (
            "roofline_percent",
            "100 max(useful_flop / fma_f32, bytes / max(copy, read)) / median time with hot caches; on another path than scalar, matrix_f16 for fma_f32",
        ),
        ("peak_percent", "100 executed_flop / median time / fma_f32 (or matrix_f16)"),
        ("deviation", "median absolute deviation / median"),
    ];
    models.map(|(name, formula)| Model { name: name.into(), formula: formula.into() }).into()
}

impl<'g> Subject<'g> {
    /// Plans, compiles, uploads. What the adapter cannot do is an error.
    pub async fn prepare(gpu: &'g Gpu, spec: &Spec) -> Result<Self> {
        let kernels = &spec.lanes.on(gpu.kernels(), &spec.work)?;
        match &spec.work {
            Work::Attention { attention, pattern } => {
                let pattern = pattern.parse()?;
                typed!(attention.storage.q, E => attention::prepare::<E>(gpu, kernels, attention, pattern).await)
            }
            Work::Backward { attention, pattern, wanted } => {
                let (pattern, wanted) = (pattern.parse()?, *wanted);
                typed!(attention.storage.q, E => {
                    backward::prepare::<E>(gpu, kernels, attention, pattern, wanted).await
                })
            }
            Work::Lsh { attention, options, direction: Direction::Forward } => {
                typed!(attention.storage.q, E => lsh::prepare::<E>(gpu, attention, options).await)
            }
            Work::Lsh { attention, options, direction } => {
                typed!(attention.storage.q, E => lsh_backward::prepare::<E>(gpu, attention, options, *direction).await)
            }
            Work::Linear { attention, options, direction: Direction::Forward } => {
                typed!(attention.storage.q, E => linear::prepare::<E>(gpu, attention, options).await)
            }
            Work::Linear { attention, options, direction } => {
                typed!(attention.storage.q, E => linear_backward::prepare::<E>(gpu, attention, options, *direction).await)
            }
            Work::Linformer { attention, options, direction: Direction::Forward } => {
                typed!(attention.storage.q, E => linformer::prepare::<E>(gpu, attention, options).await)
            }
            Work::Linformer { attention, options, direction } => {
                typed!(attention.storage.q, E => linformer_backward::prepare::<E>(gpu, attention, options, *direction).await)
            }
            Work::Decode(shape) => decode::prepare(gpu, *shape).await,
            Work::Block(shape) => block::prepare(gpu, shape).await,
            Work::Recurrent(shape) => {
                typed!(shape.weight, W => recurrent::prepare::<W>(gpu, *shape).await)
            }
            work => layer::prepare(gpu, kernels, work).await,
        }
    }

    /// Computes once and compares with the reference; the subject comes back for timing.
    pub async fn verify(self) -> Result<(Verified<'g>, Verification)> {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        (self.dispatch)(&mut encoder.begin_compute_pass(&Default::default()));
        let took_s = submit(self.gpu, "verify", encoder.finish()).await?.as_secs_f64();
        let verification = self.verify.await?;
        Ok((Verified { dispatch: self.dispatch, took_s }, verification))
    }
}

/// A case that has been compared: only such a case is timed.
pub struct Verified<'g> {
    dispatch: Dispatch<'g>,
    /// The call that was compared, from submit to done.
    pub(crate) took_s: f64,
}

impl Verified<'_> {
    /// Records one call.
    pub fn dispatch(&self, pass: &mut ComputePass<'_>) {
        (self.dispatch)(pass);
    }
}

impl Cost {
    /// Of kernels without pairs.
    fn new(flop: f64, bytes: Bytes, dispatches: usize) -> Self {
        Self {
            useful_flop: flop,
            executed_flop: flop,
            bytes: (bytes.tensors + bytes.mask) as f64,
            memory_bytes: bytes.tensors + bytes.mask + bytes.scratch,
            mask_bytes: bytes.mask,
            scratch_bytes: bytes.scratch,
            kept_pairs: None,
            visited_pairs: None,
            block_waste: None,
            dispatches,
        }
    }
}

thread_local! {
    /// What was drawn last: cases of other patterns or kernels over the same tensors follow each other, and long ones take seconds to draw.
    static LAST: RefCell<Option<(Attention, Rc<dyn Any>)>> = const { RefCell::new(None) };
}

/// N(0, 1) for q, k, v and the terms of the score.
fn tensors<E: Element>(attention: &Attention) -> Result<Rc<Tensors<E, E>>> {
    let last = LAST.take().filter(|(known, _)| known == attention);
    let known = last.and_then(|(_, tensors)| tensors.downcast::<Tensors<E, E>>().ok());
    let tensors = match known {
        Some(tensors) => tensors,
        None => Rc::new(random::<E, E>(attention, Kind::Normal, 1)?),
    };
    LAST.set(Some((attention.clone(), tensors.clone())));
    Ok(tensors)
}

/// Rows that are compared: all of a small case, else the ends, block edges and random ones. `row_cost` is what the
/// reference computes for a row.
fn sample(rows: usize, row_cost: usize) -> reference::Rows {
    // About a second on a desktop; always enough for the ends and some block edges.
    const WORK: usize = 1 << 27;
    const LEAST: usize = 32;
    const MOST: usize = 256;
    let count = (WORK / row_cost.max(1)).clamp(LEAST, MOST);
    if rows <= count { reference::Rows::All } else { reference::Rows::Sample { count, seed: 0 } }
}

/// The same choice of single rows: the reference takes them as a tensor of their own.
fn sampled_rows(rows: usize, row_cost: usize) -> Vec<usize> {
    let shape = AttentionShape::new(1, 1, rows, 1);
    sample(rows, row_cost).positions(&shape).into_iter().map(|at| at.i).collect()
}

/// What a report on attention says.
fn verification(report: &Report, of_rows: usize) -> Verification {
    let worst = crate::check::worst(report);
    let finite = |x: f64| x.is_finite().then_some(x);
    Verification {
        // Inputs are N(0, 1): nothing may be without a promise.
        pass: report.pass && report.unspecified == 0 && report.rows_checked > 0,
        rows: report.rows_checked,
        of_rows,
        worst_ratio: worst.and_then(|(_, worst)| finite(worst.ratio)),
        worst_error: worst.and_then(|(_, worst)| finite((worst.got - worst.expected).abs())),
        worst_bound: worst.and_then(|(_, worst)| finite(worst.bound)),
        worst_at: worst.as_ref().map(crate::check::place),
    }
}

/// A gradient of out, N(0, 1).
fn gradient_of_out<O: Element>(len: usize) -> Vec<O> {
    let draw = Counter::new(1, 21);
    (0..len as u64).map(|n| O::from_f64(draw.normal(n))).collect()
}

/// Gradients of so many rows, of which every element is compared: each of its name, as it was got, with what it should be.
fn elementwise<G: Element>(rows: usize, gradients: &[(&str, &[G], &Bounded)]) -> Verification {
    let compared: Vec<_> =
        gradients.iter().map(|(_, got, exact)| exact.compare(got.iter().copied(), 0.0)).collect();
    let worst = gradients.iter().zip(&compared).filter_map(|((name, ..), it)| Some((*name, it.worst?)));
    let worst = worst.max_by(|a, b| a.1.ratio.total_cmp(&b.1.ratio));
    let finite = |x: f64| x.is_finite().then_some(x);
    Verification {
        pass: !compared.is_empty()
            && compared.iter().all(|it| it.pass && it.unspecified == 0 && it.compared > 0),
        rows,
        of_rows: rows,
        worst_ratio: worst.and_then(|(_, worst)| finite(worst.ratio)),
        worst_error: worst.and_then(|(_, worst)| finite((worst.got - worst.expected).abs())),
        worst_bound: worst.and_then(|(_, worst)| finite(worst.bound)),
        worst_at: worst.map(|(name, worst)| format!("{name}[{}]", worst.index)),
    }
}

/// What two comparisons of one case say together: the worst element is that with the larger error / bound, or the one that is not finite.
fn joined(first: Option<Verification>, other: Verification) -> Verification {
    let Some(first) = first else { return other };
    let (pass, rows) = (first.pass && other.pass, first.rows + other.rows);
    let size = |it: &Verification| it.worst_ratio.unwrap_or(f64::INFINITY);
    let worst = if size(&other) > size(&first) { other } else { first };
    Verification { pass, rows, ..worst }
}

/// Refuses before it is drawn what could not be uploaded: a tensor may have thousands of millions of elements.
fn check_sizes(gpu: &Gpu, tensors: &[(&'static str, usize)], element: ElementType) -> Result<()> {
    let have = gpu.device().limits().max_storage_buffer_binding_size;
    for &(name, len) in tensors {
        let bytes = (len * element.size_bytes()) as u64;
        if bytes > have {
            return Err(Error::limit(name, "max_storage_buffer_binding_size", bytes, have).into());
        }
    }
    Ok(())
}

/// Refuses attention whose shape is none, or a tensor of which is larger than a binding of the device may be. Nothing of its length is made, and
/// nothing overflows where a `usize` has 32 bits.
///
/// # Errors
/// [`Error::Argument`], [`Error::Limit`].
pub fn check_attention(gpu: &Gpu, attention: &Attention) -> wgpu_attention::Result<()> {
    let shape = &attention.shape;
    shape.check()?;
    let have = gpu.device().limits().max_storage_buffer_binding_size;
    let size = |heads, len, dim| [shape.batch, heads, len, dim].iter().map(|&n| n as u128).product::<u128>();
    let tensors = [
        ("q", size(shape.heads, shape.q_len, shape.head_dim), attention.storage.q),
        ("k", size(shape.kv_heads, shape.kv_len, shape.head_dim), attention.storage.kv),
        ("v", size(shape.kv_heads, shape.kv_len, shape.value_dim), attention.storage.kv),
        ("out", size(shape.heads, shape.q_len, shape.value_dim), attention.storage.out),
    ];
    for (name, len, element) in tensors {
        let bytes = u64::try_from(len * element.size_bytes() as u128).unwrap_or(u64::MAX);
        if bytes > have {
            return Err(Error::limit(name, "max_storage_buffer_binding_size", bytes, have));
        }
    }
    Ok(())
}

/// The same of the tensors of the score's terms, f32.
fn check_terms(gpu: &Gpu, attention: &Attention) -> Result<()> {
    let terms = attention.score.tensors(&attention.shape);
    let lens: Vec<_> = terms.iter().map(|term| (term.name, term.len)).collect();
    check_sizes(gpu, &lens, ElementType::F32)
}

/// Bytes of the tensors of the score's terms.
fn term_bytes(attention: &Attention) -> u64 {
    let terms = attention.score.tensors(&attention.shape);
    terms.iter().map(|term| (term.len * ElementType::F32.size_bytes()) as u64).sum()
}

/// A tensor drawn from N(0, 1), rounded to its type: on the host in f64, and on the device.
async fn drawn(
    gpu: &Gpu,
    name: &'static str,
    stream: u64,
    len: usize,
    element: ElementType,
) -> Result<(Vec<f64>, Buffer)> {
    drawn_of_size(gpu, name, stream, len, element, 1.0).await
}

/// The same, times a size.
async fn drawn_of_size(
    gpu: &Gpu,
    name: &'static str,
    stream: u64,
    len: usize,
    element: ElementType,
    size: f64,
) -> Result<(Vec<f64>, Buffer)> {
    check_sizes(gpu, &[(name, len)], element)?;
    let draw = Counter::new(1, stream);
    typed!(element, E => {
        let values: Vec<E> = (0..len as u64).map(|n| E::from_f64(size * draw.normal(n))).collect();
        let device = buffer(gpu, name, bytemuck::cast_slice(&values), BufferUsages::STORAGE).await?;
        Ok((values.into_iter().map(Into::into).collect(), device))
    })
}

/// Elements of a buffer, in f64.
async fn read(gpu: &Gpu, name: &str, from: &Buffer, len: usize, element: ElementType) -> Result<Vec<f64>> {
    typed!(element, E => {
        let values: Vec<E> = crate::call::read(gpu, name, from, len).await?;
        Ok(values.into_iter().map(Into::into).collect())
    })
}
