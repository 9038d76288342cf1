//! Cases of decoding: sequence by sequence under the reference, all of them step by step on a device.

use super::{Done, EXPECTED, REFERENCE, narrow, rounded_qkv};
use crate::case::Decode;
use crate::commands::verify::record::Judged;
use anyhow::Result;
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::layer::{Bounded, rotary};
use wgpu_attention::reference::{self, Expected, Got, VerifyOptions};
use wgpu_attention::wgsl::DecodeVariant;
use wgpu_attention::{
    AppendBuffers, AttendBuffers, Attention, DecodeShape, Element, ElementType, Gpu, Inputs, KernelPath,
    KvCache, Position, RotaryShape, Storage,
};
use wgpu_attention_bench::call::{buffer, read, submit};

/// A sequence as the cache has it, with queries that have turned, and how far outputs may be off because rows turn in f32.
struct Sequence<E> {
    attention: Attention,
    q: Vec<f32>,
    k: Vec<E>,
    v: Vec<E>,
    turning: f64,
}

/// What a sequence gave: out `[H, rows, dv]` and lse `[H, rows]`.
pub(super) struct Outputs<O> {
    pub(super) out: Vec<O>,
    pub(super) lse: Vec<f32>,
}

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Decode) -> Result<Judged> {
    let tensors = [&case.q[..], &case.k, &case.v];
    let mut judged = None;
    for b in long(case) {
        let sequence = sequence::<f32>(case, tensors, b)?;
        let inputs = Inputs::new(&sequence.q, &sequence.k, &sequence.v);
        let exact = reference::attention_with(sequence.attention.clone(), &inputs, &case.shape.pattern())?;
        let got = Outputs { out: narrow(&exact.out), lse: narrow(&exact.lse) };
        and(&mut judged, compared(case, b, &sequence, &got, VerifyOptions::default())?);
    }
    Ok(judged.expect("a case has a position"))
}

/// The device, with a cache in one piece and one in pages, against the expected values; in 16 bits against the reference on the rounded ones.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Decode) -> Result<Done> {
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("decoding has no {path} kernel")));
    }
    let [q, k, v] = match rounded_qkv::<E>(&case.q, &case.k, &case.v) {
        Ok(tensors) => tensors,
        Err(reason) => return Ok(Done::Unsupported(reason)),
    };
    let mut shape = case.shape.input(E::TYPE).output(E::TYPE);
    shape.cache = shape.cache.storage(E::TYPE);
    let page = 1 << shape.cache.capacity.trailing_zeros().min(3);
    let paged = shape.cache.paged(page, shape.cache.batch * shape.cache.capacity / page);
    let mut judged = None;
    for cache in [shape.cache, paged] {
        shape.cache = cache;
        let (splits, got) = pollster::block_on(run::<E>(gpu, &shape, case, [&q, &k, &v]))?;
        for b in long(case) {
            let sequence = sequence::<E>(case, [&q, &k, &v], b)?;
            let length = sequence.attention.shape.kv_len;
            let piece = cache.paging.map_or(128, |paging| paging.page);
            let order = |_: Position| walk(length, splits);
            let tiles = |_: Position| length.div_ceil(piece) + length.div_ceil(DecodeVariant::CHUNK);
            let options = VerifyOptions::default().order(&order).tiles(&tiles);
            and(&mut judged, compared(case, b, &sequence, &got[b], options)?);
        }
    }
    let against = if E::TYPE == ElementType::F32 { EXPECTED } else { REFERENCE };
    let judged = judged.expect("a case has a position").into();
    Ok(Done::Compared { path: "scalar".into(), against, judged })
}

/// Sequences with a position.
fn long(case: &Decode) -> impl Iterator<Item = usize> {
    case.lengths().into_iter().enumerate().filter(|(_, length)| *length > 0).map(|(b, _)| b)
}

/// Another part of one result.
pub(super) fn and(judged: &mut Option<Judged>, other: Judged) {
    *judged = Some(match judged.take() {
        Some(judged) => judged.and(other),
        None => other,
    });
}

/// Keys by the split that meets them: chunks are dealt out in turn.
pub(super) fn walk(length: usize, splits: usize) -> Vec<Vec<u32>> {
    let split_of = |key: u32| key as usize / DecodeVariant::CHUNK % splits;
    let keys = |split| (0..length as u32).filter(|&key| split_of(key) == split).collect::<Vec<_>>();
    (0..splits).map(keys).filter(|keys| !keys.is_empty()).collect()
}

/// Sequence b of q, k and v, turned as its positions say.
fn sequence<E: Element>(case: &Decode, [q, k, v]: [&[E]; 3], b: usize) -> Result<Sequence<E>> {
    let (cache, heads, length) = (&case.shape.cache, case.shape.heads, case.lengths()[b]);
    let q = turned(case, &case.sequence(q, heads, cache.head_dim, b), heads, length)?;
    let k = turned(case, &case.sequence(k, cache.kv_heads, cache.head_dim, b), cache.kv_heads, length)?;
    // The widened q is what the kernel has, whatever its type is.
    let storage = Storage::all(E::TYPE).q(ElementType::F32);
    let attention = case.shape.of_sequence(length, length).storage(storage);
    let v = case.sequence(v, cache.kv_heads, cache.value_dim, b);
    let turning = turning::<E>(case, [&q, &k], &v);
    let k = k.out.iter().map(|&x| E::from_f64(x)).collect();
    Ok(Sequence { attention, q: narrow(&q.out), k, v, turning })
}

/// Rows `[heads, length, d]` at positions 0, 1, ..
fn turned<E: Element>(case: &Decode, x: &[E], heads: usize, length: usize) -> Result<Bounded> {
    let x = Bounded::exact(x);
    let (Some((dim, pairs)), Some(tables)) = (case.shape.rotary, &case.tables) else { return Ok(x) };
    let shape = RotaryShape::new(1, heads, length, case.shape.cache.head_dim).rotary_dim(dim).pairs(pairs);
    let [cos, sin] = tables.each_ref().map(|table| Bounded::exact(&table[..length * (dim / 2)]));
    Ok(rotary(&shape, &x, &cos, &sin)?)
}

/// How far an output may be from that of rows turned exactly. If no score is off by more than s, weights are off by at most a factor e^(2 s): out
/// by (e^(2 s) - 1) max |v|, and lse by s.
fn turning<E: Element>(case: &Decode, [q, k]: [&Bounded; 2], v: &[E]) -> f64 {
    if case.shape.rotary.is_none() {
        return 0.0;
    }
    let dim = case.shape.cache.head_dim;
    let rows = |x: &Bounded, element: ElementType| -> Vec<Vec<[f64; 2]>> {
        // Rounded to their type on the device and here, each in its own way; the small numbers of f16 may be 0.
        let small = if element == ElementType::F16 { 2f64.powi(-14) } else { 0.0 };
        let off = |x: f64, bound: f64| bound + 2.0 * element.rounding() * (x.abs() + bound) + small;
        let elements = x.out.iter().zip(&x.bound).map(|(&x, &bound)| [x.abs(), off(x, bound)]);
        elements.collect::<Vec<_>>().chunks(dim).map(<[_]>::to_vec).collect()
    };
    let (q, k) = (rows(q, ElementType::F32), rows(k, E::TYPE));
    let off = |q: &[[f64; 2]], k: &[[f64; 2]]| -> f64 {
        q.iter().zip(k).map(|([q, dq], [k, dk])| q * dk + dq * k + dq * dk).sum()
    };
    let most = q.iter().flat_map(|q| k.iter().map(move |k| off(q, k))).fold(0.0, f64::max);
    let scale = case.shape.scale.map_or((dim as f64).sqrt().recip(), f64::from);
    let score = scale.abs() * most;
    let value = v.iter().map(|&x| Into::<f64>::into(x).abs()).fold(0.0, f64::max);
    (2.0 * score).exp_m1() * value + score
}

/// A sequence within its bounds: of the file's values in f32, else of the reference's.
fn compared<E: Element>(
    case: &Decode,
    b: usize,
    sequence: &Sequence<E>,
    got: &Outputs<E>,
    options: VerifyOptions<'_>,
) -> Result<Judged> {
    let (attention, pattern) = (sequence.attention.clone(), case.shape.pattern());
    let inputs = Inputs::new(&sequence.q, &sequence.k, &sequence.v);
    let (rows, got) = (reference::Rows::All, Got::new(&got.out).lse(&got.lse[..]));
    let report = if E::TYPE == ElementType::F32 {
        let (heads, width) = (case.shape.heads, case.shape.cache.value_dim);
        let out = case.sequence(&case.out, heads, width, b);
        let lse = case.lse.as_ref().map(|lse| case.sequence(lse, heads, 1, b));
        let expected = Expected::new(&out).lse(lse.as_deref());
        let options = options.rows(rows).allowance(case.allowance + sequence.turning);
        reference::compare_expected(attention, &inputs, &pattern, got, expected, options)?
    } else {
        let options = options.rows(rows).allowance(sequence.turning);
        reference::verify(attention, &inputs, &pattern, got, options)?
    };
    Ok(Judged::rows(&report).of(&format!("sequence {b}")))
}

/// The buffers of a step.
struct Buffers {
    q: Buffer,
    k: Buffer,
    /// None where values are a part of keys.
    v: Option<Buffer>,
    counts: Buffer,
    out: Buffer,
    lse: Buffer,
    tables: Option<[Buffer; 2]>,
}

impl Buffers {
    async fn new(gpu: &Gpu, shape: &DecodeShape, tables: Option<&[Vec<f32>; 2]>) -> Result<Self> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let of = async |name, len: usize, element: ElementType| {
            buffer(gpu, name, &vec![0xff; len * element.size_bytes()], usage).await
        };
        let table = async |name, values: &[f32]| buffer(gpu, name, bytemuck::cast_slice(values), usage).await;
        Ok(Self {
            q: of("q", shape.len_q(), shape.input).await?,
            k: of("k", shape.len_k(), shape.input).await?,
            v: match shape.cache.value_start {
                None => Some(of("v", shape.len_v(), shape.input).await?),
                Some(_) => None,
            },
            counts: of("counts", shape.cache.batch, ElementType::F32).await?,
            out: of("out", shape.len_out(), shape.output).await?,
            lse: of("lse", shape.len_lse(), ElementType::F32).await?,
            tables: match tables {
                Some([cos, sin]) => Some([table("cos", cos).await?, table("sin", sin).await?]),
                None => None,
            },
        })
    }

    fn append(&self) -> AppendBuffers<'_> {
        let [cos, sin] = self.tables();
        AppendBuffers::new(whole(&self.k), self.v.as_ref().map(whole))
            .cos(cos)
            .sin(sin)
            .counts(whole(&self.counts))
    }

    fn attend(&self) -> AttendBuffers<'_> {
        let [cos, sin] = self.tables();
        let attend = AttendBuffers::new(whole(&self.q), whole(&self.out)).cos(cos).sin(sin);
        attend.counts(whole(&self.counts)).lse(whole(&self.lse))
    }

    fn tables(&self) -> [Option<wgpu::BufferBinding<'_>>; 2] {
        [0, 1].map(|n| self.tables.as_ref().map(|tables| whole(&tables[n])))
    }
}

fn whole(buffer: &Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

/// All steps on a device: among how many workgroups keys were split, and what each sequence gave. What no step wrote is NaN.
async fn run<E: Element>(
    gpu: &Gpu,
    shape: &DecodeShape,
    case: &Decode,
    [q, k, v]: [&[E]; 3],
) -> Result<(usize, Vec<Outputs<E>>)> {
    let (queue, cache, heads) = (gpu.queue(), &shape.cache, shape.heads);
    let buffers = Buffers::new(gpu, shape, case.tables.as_ref()).await?;
    let mut kv = gpu.kernels().kv_cache(cache)?;
    let plan = gpu.kernels().decode(shape)?;
    let call = plan.bind(&kv, buffers.append(), buffers.attend())?;
    let width = cache.value_dim;
    let empty = |length: usize| Outputs {
        out: vec![E::from_f64(f64::NAN); heads * length * width],
        lse: vec![f32::NAN; heads * length],
    };
    let mut all: Vec<Outputs<E>> = case.lengths().into_iter().map(empty).collect();
    for counts in &case.steps {
        let rows = Rows { len: case.len, from: kv.lengths().to_vec(), counts, new: shape.new };
        write(gpu, &buffers.q, &rows.taken(q, heads, cache.head_dim));
        write(gpu, &buffers.k, &rows.taken(k, cache.kv_heads, cache.head_dim));
        if let Some(buffer) = &buffers.v {
            write(gpu, buffer, &rows.taken(v, cache.kv_heads, width));
        }
        write(gpu, &buffers.counts, &counts.iter().map(|&count| count as u32).collect::<Vec<_>>());
        write(gpu, &buffers.out, &vec![E::from_f64(f64::NAN); shape.len_out()]);
        write(gpu, &buffers.lse, &vec![f32::NAN; shape.len_lse()]);
        submit(gpu, "decode", step(gpu, queue, &mut kv, &call, counts)?).await?;
        let out: Vec<E> = read(gpu, "out", &buffers.out, shape.len_out()).await?;
        let lse: Vec<f32> = read(gpu, "lse", &buffers.lse, shape.len_lse()).await?;
        for (b, into) in all.iter_mut().enumerate() {
            rows.put(&mut into.out, &out, heads, width, b);
            rows.put(&mut into.lse, &lse, heads, 1, b);
        }
    }
    Ok((plan.splits(), all))
}

fn step(
    gpu: &Gpu,
    queue: &wgpu::Queue,
    cache: &mut KvCache,
    call: &wgpu_attention::Call,
    counts: &[usize],
) -> Result<wgpu::CommandBuffer> {
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    cache.extend(queue, &mut encoder, counts)?;
    call.encode(&mut encoder);
    Ok(encoder.finish())
}

/// Writes are of whole words.
fn write<T: bytemuck::Pod>(gpu: &Gpu, to: &Buffer, values: &[T]) {
    let mut bytes = bytemuck::cast_slice(values).to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    gpu.queue().write_buffer(to, 0, &bytes);
}

/// The rows of a step: of sequence b `counts[b]`, from position `from[b]` on.
struct Rows<'a> {
    /// L.
    len: usize,
    from: Vec<usize>,
    counts: &'a [usize],
    /// Rows that the step has room for.
    new: usize,
}

impl Rows<'_> {
    /// Of a tensor `[B, heads, L, dim]`, as `[B, heads, new, dim]`. Rows behind a count are NaN.
    fn taken<E: Element>(&self, x: &[E], heads: usize, dim: usize) -> Vec<E> {
        let mut taken = vec![E::from_f64(f64::NAN); self.counts.len() * heads * self.new * dim];
        for (b, &count) in self.counts.iter().enumerate() {
            for head in b * heads..(b + 1) * heads {
                let rows = &x[(head * self.len + self.from[b]) * dim..][..count * dim];
                taken[head * self.new * dim..][..count * dim].copy_from_slice(rows);
            }
        }
        taken
    }

    /// Those of sequence b, from `[B, heads, new, dim]` into `[heads, length, dim]`.
    fn put<T: Copy>(&self, into: &mut [T], from: &[T], heads: usize, dim: usize, b: usize) {
        let (length, count) = (into.len() / (heads * dim), self.counts[b] * dim);
        for head in 0..heads {
            let rows = &from[(b * heads + head) * self.new * dim..][..count];
            into[(head * length + self.from[b]) * dim..][..count].copy_from_slice(rows);
        }
    }
}
