//! Packed sequences, keys and queries alike, on the device against the reference.

use super::sequences::{Oracle, Text, Walked, Written};
use super::{Judged, Unjudged};
use crate::gpu::{PACKED, PackedBuffers, PackedPlan};
use crate::reference::Got;
use crate::wgsl::DecodeVariant;
use crate::{Element, ElementType, Gpu, Result, Strides};

impl Gpu {
    pub(super) async fn judge_packed(&self, small: Result<PackedPlan>) -> Judged {
        let plan = &small.map_err(Unjudged::of_small)?;
        let storage = plan.shape().storage;
        typed!(storage.q, Q => typed!(storage.kv, KV => typed!(storage.out, O => {
            for oracle in Oracle::ALL {
                if let Some(found) = Sequences::<Q, KV>::new(plan, oracle)?.fault::<O>(self).await? {
                    return Ok(Some(format!("FAIL, {found}")));
                }
            }
            Ok(None)
        })))
    }
}

/// A call over the first sequences of [`PACKED`].
struct Sequences<'a, Q, KV> {
    plan: &'a PackedPlan,
    texts: Vec<Text<Q, KV>>,
}

impl<'a, Q: Element, KV: Element> Sequences<'a, Q, KV> {
    fn new(plan: &'a PackedPlan, oracle: Oracle) -> Result<Self> {
        let shape = plan.shape();
        let text = |(b, [queries, keys]): (usize, &[usize; 2])| {
            Text::new(shape.of_sequence(*queries, *keys), &shape.pattern(), oracle, 1 + b as u64)
        };
        let texts = PACKED[..shape.sequences].iter().enumerate().map(text).collect::<Result<_>>()?;
        Ok(Self { plan, texts })
    }

    /// What is wrong with out or lse, if anything is.
    async fn fault<O: Element>(&self, gpu: &Gpu) -> Result<Option<String>> {
        let shape = self.plan.shape();
        let written = self.run::<O>(gpu).await?;
        let walked = Walked { splits: self.plan.splits(), piece: DecodeVariant::STRETCH };
        for (b, text) in self.texts.iter().enumerate() {
            let own: Vec<_> = (first(0, b)..first(0, b + 1)).map(|row| [0, row]).collect();
            let (out, lse) = written.taken(&own);
            let got = Got { out: &out, lse: lse.as_deref() };
            if let Some(found) = text.fault(&shape.pattern(), walked, got)? {
                return Ok(Some(format!("sequence {b}, {found}")));
            }
        }
        let nobodys: Vec<_> = (first(0, shape.sequences)..shape.q_rows).map(|row| [0, row]).collect();
        Ok(written.empty_fault(&nobodys))
    }

    async fn run<O: Element>(&self, gpu: &Gpu) -> Result<Written<O>> {
        let (shape, all) = (self.plan.shape(), self.plan.attention());
        let [mut k, mut v] = [shape.len_k(), shape.len_v()].map(|len| vec![KV::from_f64(f64::NAN); len]);
        let mut q = vec![Q::from_f64(f64::NAN); shape.len_q()];
        for (b, Text { tensors, .. }) in self.texts.iter().enumerate() {
            put(&mut q, all.q_strides(), &tensors.q, (0, b), [shape.heads, shape.head_dim]);
            put(&mut k, all.k_strides(), &tensors.k, (1, b), [shape.kv_heads, shape.head_dim]);
            put(&mut v, all.v_strides(), &tensors.v, (1, b), [shape.kv_heads, shape.value_dim]);
        }
        let offsets = |of| (0..=shape.sequences).map(|b| first(of, b) as u32).collect::<Vec<_>>();
        let [q_offsets, k_offsets] =
            [0, 1].map(|of| gpu.upload("offsets", &offsets(of), shape.sequences + 1));
        let (q_offsets, k_offsets) = (q_offsets?, k_offsets?);
        let q = gpu.upload("q", &q, q.len())?;
        let k = gpu.upload("k", &k, k.len())?;
        let v = gpu.upload("v", &v, v.len())?;
        let out = gpu.output("out", shape.len_out(), O::TYPE)?;
        let lse = gpu.output("lse", shape.len_lse(), ElementType::F32)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let offsets = (whole(&q_offsets), whole(&k_offsets));
        let buffers = PackedBuffers::new(whole(&q), whole(&k), whole(&v), offsets.0, offsets.1, whole(&out));
        let call = self.plan.bind(buffers.lse(shape.lse.then(|| whole(&lse))))?;
        let fetched = gpu.fetch(&[&out, &lse], |encoder| call.encode(encoder)).await?;
        Ok(Written {
            out: fetched.take(0, shape.len_out())?,
            lse: shape.lse.then(|| fetched.take(1, shape.len_lse())).transpose()?,
            strides: all.out_strides(),
            heads: shape.heads,
            rows: shape.q_rows,
            dim: shape.value_dim,
        })
    }
}

/// The first row of a sequence: of queries, 0, or of keys, 1.
fn first(of: usize, b: usize) -> usize {
    PACKED[..b].iter().map(|lengths| lengths[of]).sum()
}

/// `[heads, length, dim]` of sequence b to its rows.
fn put<E: Element>(
    to: &mut [E],
    strides: Strides,
    from: &[E],
    (of, b): (usize, usize),
    [heads, dim]: [usize; 2],
) {
    let (rows, length) = (first(of, b)..first(of, b + 1), PACKED[b][of]);
    for (head, row) in (0..heads).flat_map(|head| rows.clone().map(move |row| (head, row))) {
        let at = strides.at(0, head, row);
        to[at..at + dim].copy_from_slice(&from[(head * length + row - rows.start) * dim..][..dim]);
    }
}
