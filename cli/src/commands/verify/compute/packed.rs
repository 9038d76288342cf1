//! Cases of packed sequences: sequence by sequence under the reference, all of them in one call on a device.

use super::decode::{Outputs, and, walk};
use super::{Done, EXPECTED, REFERENCE, narrow, rounded_qkv};
use crate::case::{Packed, heads_first};
use crate::commands::verify::record::Judged;
use anyhow::Result;
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::{self, Expected, Got, VerifyOptions};
use wgpu_attention::wgsl::DecodeVariant;
use wgpu_attention::{
    Attention, Element, ElementType, Gpu, Inputs, KernelPath, PackedBuffers, Position, Storage,
};
use wgpu_attention_bench::call::{buffer, read, submit};

/// A sequence by itself: `[heads, rows, dim]` of its own rows.
struct Sequence<E> {
    attention: Attention,
    q: Vec<E>,
    k: Vec<E>,
    v: Vec<E>,
}

/// The reference against the expected values.
pub(super) fn on_cpu(case: &Packed) -> Result<Judged> {
    over_sequences(case, |b| {
        let sequence = sequence::<f32>(case, [&case.q, &case.k, &case.v], b);
        let attention = sequence.attention.clone();
        let exact = reference::attention_with(attention, &sequence.inputs(), &case.shape.pattern())?;
        let got = Outputs { out: narrow(&exact.out), lse: narrow(&exact.lse) };
        compared(case, b, &sequence, &got, VerifyOptions::default())
    })
}

/// The device against the expected values; in 16 bits against the reference on the rounded ones.
pub(super) fn on_gpu<E: Element>(gpu: &Gpu, case: &Packed) -> Result<Done> {
    if let Some(path @ KernelPath::Cooperative) = gpu.kernels().options().path {
        return Ok(Done::Unsupported(format!("packed sequences have no {path} kernel")));
    }
    let [q, k, v] = match rounded_qkv::<E>(&case.q, &case.k, &case.v) {
        Ok(tensors) => tensors,
        Err(reason) => return Ok(Done::Unsupported(reason)),
    };
    let (splits, got) = pollster::block_on(run::<E>(gpu, case, [&q, &k, &v]))?;
    let (heads, width, rows) = (case.shape.heads, case.shape.value_dim, case.shape.q_rows);
    let mut judged = over_sequences(case, |b| {
        let sequence = sequence::<E>(case, [&q, &k, &v], b);
        let [queries, _] = case.rows(b);
        let own = Outputs {
            out: heads_first(&got.out, queries.clone(), heads, width),
            lse: (0..heads).flat_map(|head| got.lse[head * rows..][queries.clone()].to_vec()).collect(),
        };
        let length = sequence.attention.shape.kv_len;
        let order = |_: Position| walk(length, splits);
        let tiles = |_: Position| length.div_ceil(128) + length.div_ceil(DecodeVariant::CHUNK);
        compared(case, b, &sequence, &own, VerifyOptions::default().order(&order).tiles(&tiles))
    })?;
    if let Some(row) = filled_row_of_nobody(case, &got) {
        judged.fail(format!("row {row} is no sequence's, and is not 0 with the lse of no key"));
    }
    let against = if E::TYPE == ElementType::F32 { EXPECTED } else { REFERENCE };
    Ok(Done::Compared { path: "scalar".into(), against, judged: judged.into() })
}

/// All sequences that have a query, as one result.
fn over_sequences(case: &Packed, mut judge: impl FnMut(usize) -> Result<Judged>) -> Result<Judged> {
    let mut all = None;
    for b in (0..case.shape.sequences).filter(|&b| !case.rows(b)[0].is_empty()) {
        and(&mut all, judge(b)?);
    }
    Ok(all.expect("a case has a query"))
}

/// A row behind the last sequence that is not empty.
fn filled_row_of_nobody<E: Element>(case: &Packed, got: &Outputs<E>) -> Option<usize> {
    let (heads, width, rows) = (case.shape.heads, case.shape.value_dim, case.shape.q_rows);
    let first = case.offsets[0][case.shape.sequences] as usize;
    (first..rows).find(|row| {
        let out = &got.out[row * heads * width..][..heads * width];
        let lse = (0..heads).map(|head| got.lse[head * rows + row]);
        out.iter().any(|&x| Into::<f64>::into(x) != 0.0) || lse.into_iter().any(|lse| lse != f32::MIN)
    })
}

/// Sequence b of q, k and v.
fn sequence<E: Element>(case: &Packed, [q, k, v]: [&[E]; 3], b: usize) -> Sequence<E> {
    let (shape, [queries, keys]) = (case.shape.storage(Storage::all(E::TYPE)), case.rows(b));
    Sequence {
        attention: shape.of_sequence(queries.len(), keys.len()),
        q: heads_first(q, queries, shape.heads, shape.head_dim),
        k: heads_first(k, keys.clone(), shape.kv_heads, shape.head_dim),
        v: heads_first(v, keys, shape.kv_heads, shape.value_dim),
    }
}

impl<E: Element> Sequence<E> {
    fn inputs(&self) -> Inputs<'_, E, E> {
        Inputs::new(&self.q, &self.k, &self.v)
    }
}

/// A sequence within its bounds: of the file's values in f32, else of the reference's.
fn compared<E: Element>(
    case: &Packed,
    b: usize,
    sequence: &Sequence<E>,
    got: &Outputs<E>,
    options: VerifyOptions<'_>,
) -> Result<Judged> {
    let (attention, pattern) = (sequence.attention.clone(), case.shape.pattern());
    let (inputs, options) = (sequence.inputs(), options.rows(reference::Rows::All));
    let got = Got::new(&got.out).lse(&got.lse[..]);
    let report = if E::TYPE == ElementType::F32 {
        let (heads, width, rows) = (case.shape.heads, case.shape.value_dim, case.shape.q_rows);
        let [queries, _] = case.rows(b);
        let out = heads_first(&case.out, queries.clone(), heads, width);
        let of_head = |lse: &[f32], head: usize| lse[head * rows..][queries.clone()].to_vec();
        let lse =
            case.lse.as_ref().map(|lse| (0..heads).flat_map(|head| of_head(lse, head)).collect::<Vec<_>>());
        let expected = Expected::new(&out).lse(lse.as_deref());
        reference::compare_expected(
            attention,
            &inputs,
            &pattern,
            got,
            expected,
            options.allowance(case.allowance),
        )?
    } else {
        reference::verify(attention, &inputs, &pattern, got, options)?
    };
    Ok(Judged::rows(&report).of(&format!("sequence {b}")))
}

/// All sequences in one call: among how many workgroups keys were split, and what came. What the call does not write is NaN.
async fn run<E: Element>(gpu: &Gpu, case: &Packed, [q, k, v]: [&[E]; 3]) -> Result<(usize, Outputs<E>)> {
    let shape = case.shape.storage(Storage::all(E::TYPE));
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let of = async |name, bytes: &[u8]| buffer(gpu, name, bytes, usage).await;
    let nothing = |len: usize, element: ElementType| vec![0xff; len * element.size_bytes()];
    let [q_offsets, k_offsets] = case.offsets.each_ref().map(|offsets| bytemuck::cast_slice(offsets));
    let q = of("q", bytemuck::cast_slice(q)).await?;
    let k = of("k", bytemuck::cast_slice(k)).await?;
    let v = of("v", bytemuck::cast_slice(v)).await?;
    let q_offsets = of("q_offsets", q_offsets).await?;
    let k_offsets = of("k_offsets", k_offsets).await?;
    let out = of("out", &nothing(shape.len_out(), E::TYPE)).await?;
    let lse = of("lse", &nothing(shape.len_lse(), ElementType::F32)).await?;
    let plan = gpu.kernels().packed_sequences(&shape)?;
    let whole = Buffer::as_entire_buffer_binding;
    let buffers = PackedBuffers::new(
        whole(&q),
        whole(&k),
        whole(&v),
        whole(&q_offsets),
        whole(&k_offsets),
        whole(&out),
    );
    let call = plan.bind(buffers.lse(whole(&lse)))?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    call.encode(&mut encoder);
    submit(gpu, "packed sequences", encoder.finish()).await?;
    let got = Outputs {
        out: read(gpu, "out", &out, shape.len_out()).await?,
        lse: read(gpu, "lse", &lse, shape.len_lse()).await?,
    };
    Ok((plan.splits(), got))
}
