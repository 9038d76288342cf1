//! The gradients of attention by q, k and v, under any pattern: the records of the queries and the passes, after a forward call that is
//! not timed.

use super::heads::{Head, call_of, heads, part};
use super::{Bytes, Subject, check_sizes, check_terms, elementwise, gradient_of_out, term_bytes};
use crate::call::{Backward, checked};
use crate::cases::Wanted;
use crate::record::{Cost, Verification};
use anyhow::Result;
use std::rc::Rc;
use wgpu_attention::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use wgpu_attention::reference::{Kind, Position, Tensors, WeightFormat, random};
use wgpu_attention::{
    AnyPattern, Attention, AttentionShape, BackwardExplanation, BlockGrid, Element, Gpu, Inputs, KernelPath,
    Kernels, Parts, Pattern,
};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    kernels: &Kernels,
    attention: &Attention,
    pattern: AnyPattern,
    wanted: Wanted,
) -> Result<Subject<'g>> {
    let (attention, shape) = (attention.clone(), attention.shape);
    let [q, k, v, out] = [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    check_sizes(gpu, &[("q", q), ("k", k), ("v", v), ("out", out)], E::TYPE)?;
    check_terms(gpu, &attention)?;
    let parts = Parts::lower(&pattern, BlockGrid::from(&shape))?;
    let plan = checked(gpu.device(), "plan", || kernels.attention_parts(&attention, &parts)).await??;
    let backward = checked(gpu.device(), "backward plan", || plan.backward()).await??;
    let tensors = random::<E, E>(&attention, Kind::Normal, 1)?;
    let dout: Vec<E> = gradient_of_out(out);
    let each = wanted.each();
    let call = Backward::upload(gpu, (&plan, &backward), &tensors.inputs(), &dout, each).await?;
    let call = Rc::new(call);
    let explained = backward.explain();
    let written = [q, k, v].iter().zip(each).map(|(len, wanted)| len * usize::from(wanted)).sum::<usize>();
    let bytes = Bytes {
        // With out and its gradient, those of dq, dk and dv that are wanted, and (m, l) of each query.
        tensors: ((q + k + v + 2 * out + written) * E::TYPE.size_bytes() + 8 * shape.len_lse()) as u64
            + term_bytes(&attention),
        mask: explained.mask_bytes + plan.explain().mask_bytes,
        scratch: explained.scratch_bytes,
    };
    let [useful_flop, executed_flop] = flops(&attention, wanted, explained);
    let cost = Cost {
        useful_flop,
        executed_flop,
        kept_pairs: Some(explained.kept),
        visited_pairs: Some(explained.visited),
        block_waste: Some(parts.waste()),
        ..Cost::new(0.0, bytes, explained.dispatches)
    };
    let (path, passes) = (plan.path().path, backward.path().path);
    let written = call.clone();
    let verify = async move {
        let got = written.read::<E>().await?;
        Compared {
            attention: &attention,
            tensors: &tensors,
            dout: &dout,
            pattern: &pattern,
            parts: &parts,
            path,
            passes,
        }
        .with(&got)
    };
    Ok(Subject {
        path: passes.to_string(),
        shaders: backward.shaders(each),
        cost,
        gpu,
        dispatch: Box::new(move |pass| call.dispatch(pass)),
        verify: Box::pin(verify),
    })
}

/// Useful and executed operations.
fn flops(attention: &Attention, wanted: Wanted, explained: &BackwardExplanation) -> [f64; 2] {
    let AttentionShape { head_dim, value_dim, .. } = attention.shape;
    let per_pair = match wanted {
        Wanted::All => return [attention.backward_flops(explained.kept), explained.flops],
        // q . k, do . v, and ds k.
        Wanted::Queries => 4 * head_dim + 2 * value_dim,
        // Both again, ds q, and p do.
        Wanted::Keys => 4 * (head_dim + value_dim),
    };
    [explained.kept, explained.visited].map(|pairs| per_pair as f64 * pairs as f64)
}

/// What gradients are compared with.
struct Compared<'a, E> {
    attention: &'a Attention,
    tensors: &'a Tensors<E, E>,
    dout: &'a [E],
    pattern: &'a AnyPattern,
    parts: &'a Parts,
    /// Of attention itself, and of its gradients.
    path: KernelPath,
    passes: KernelPath,
}

impl<E: Element> Compared<'_, E> {
    /// Every element; of many heads that nothing tells apart those of the first and of the last, as calls of their own.
    fn with(&self, got: &[Option<Vec<E>>; 3]) -> Result<Verification> {
        let (attention, shape) = (self.attention, &self.attention.shape);
        let contiguous = attention.layouts == Default::default() && attention.score.is_plain();
        let alike = shape.batch == 1 && shape.heads == shape.kv_heads && !self.pattern.varies().heads;
        let all = Head {
            q: (0, attention.len_q()),
            k: (0, attention.len_k()),
            v: (0, attention.len_v()),
            out: (0, attention.len_out()),
        };
        if !(contiguous && alike && shape.heads > 2) {
            return self.of(attention, all, got);
        }
        let call = call_of(attention, 1);
        let first = self.of(&call, heads(shape, 0, 1), got)?;
        let last = self.of(&call, heads(shape, shape.heads - 1, 1), got)?;
        let joined = super::joined(Some(first), last);
        Ok(Verification { of_rows: rows(shape), ..joined })
    }

    /// The elements of these heads.
    fn of(&self, attention: &Attention, at: Head, got: &[Option<Vec<E>>; 3]) -> Result<Verification> {
        let Tensors { q, k, v, terms, .. } = self.tensors;
        let inputs = Inputs::new(part(q, at.q), part(k, at.k), part(v, at.v));
        let inputs = terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values));
        let exact = self.bounded(attention, &inputs, part(self.dout, at.out))?;
        let exact = [("dq", &exact.dq), ("dk", &exact.dk), ("dv", &exact.dv)];
        let computed = exact.into_iter().zip(got).zip([at.q, at.k, at.v]);
        let computed = computed
            .filter_map(|(((name, exact), got), place)| Some((name, part(got.as_deref()?, place), exact)));
        Ok(elementwise(rows(&attention.shape), &computed.collect::<Vec<_>>()))
    }

    fn bounded(
        &self,
        attention: &Attention,
        inputs: &Inputs<'_, E, E>,
        dout: &[E],
    ) -> Result<BoundedGradients> {
        let (parts, transposed) = (self.parts, self.parts.transpose()?);
        let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
        let tiles = |at: Position| parts.key_tiles(at.batch, at.head, at.i);
        let query_tiles = |at: Position| transposed.key_tiles(at.batch, at.head, at.i);
        let options = BoundOptions::default().order(&order).tiles(&tiles).query_tiles(&query_tiles);
        let options = options.weights(WeightFormat::of(self.path)).path(self.passes).storage(E::TYPE);
        Ok(bounded(attention, inputs, dout, self.pattern, options)?)
    }
}

/// Rows of dq, dk and dv.
fn rows(shape: &AttentionShape) -> usize {
    shape.len_lse() + 2 * shape.batch * shape.kv_heads * shape.kv_len
}
