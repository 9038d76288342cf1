//! Gradients of a call on the device against the reference.

use super::rows::{Rows, rounded};
use super::subject::Subject;
use crate::reference::gradient::{BoundOptions, BoundedGradients, bounded};
use crate::reference::layer::Bounded;
use crate::reference::{Position, WeightFormat};
use crate::{
    Attention, AttentionGradBuffers, AttentionPlan, BackwardPlan, Counter, Element, ElementType, Gradients,
    Result,
};

impl<Q: Element, KV: Element, O: Element> Subject<'_, Q, KV, O> {
    /// Runs a plan of this call and one of its gradients: what is wrong with dq, dk or dv, if anything is.
    pub(super) async fn judge_gradients(
        &self,
        forward: &AttentionPlan,
        plan: &BackwardPlan,
    ) -> Result<Option<String>> {
        let (gpu, attention, stored) = (self.gpu, self.attention, plan.gradients());
        let dout = dout(attention, stored);
        let [dq, dk, dv, of_dout] = rows(attention, stored);
        let given = of_dout.uploaded(gpu, &dout, stored.dout)?;
        let state = gpu.output("state", 2 * attention.len_lse(), ElementType::F32)?;
        let out = gpu.output("out", attention.len_out(), O::TYPE)?;
        let types = [stored.dq, stored.dkv, stored.dkv];
        let buffers = ["dq", "dk", "dv"].iter().zip([dq, dk, dv]).zip(types);
        let buffers = buffers.map(|((name, rows), element)| gpu.output(name, rows.extent().max(1), element));
        let buffers = buffers.collect::<Result<Vec<_>>>()?;

        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let [q, k, v] = self.buffers.each_ref().map(whole);
        let asked = AttentionGradBuffers::new(q, k, v, whole(&out), whole(&state), whole(&given));
        let asked = asked.dq(whole(&buffers[0])).dk(whole(&buffers[1])).dv(whole(&buffers[2]));
        let asked = self.terms.iter().fold(asked, |asked, (name, tensor)| asked.tensor(name, whole(tensor)));
        let first = forward.bind(self.forward(&out).state(whole(&state)))?;
        let call = plan.bind(asked)?;
        let fetch = buffers.iter().collect::<Vec<_>>();
        let fetched = gpu.fetch(&fetch, |encoder| {
            first.encode(encoder);
            call.encode(encoder);
        });
        let fetched = fetched.await?;

        let of_out =
            Rows::new(attention.layouts.out, attention.shape.query_rows(), attention.shape.value_dim);
        let dout: Vec<O> = of_out.spread(&dout);
        let exact = |storage| self.exact((forward, plan), &dout, storage);
        let by_queries = exact(stored.dq)?;
        let by_keys = if stored.dkv == stored.dq { by_queries.clone() } else { exact(stored.dkv)? };
        let exact = [&by_queries.dq, &by_keys.dk, &by_keys.dv];
        for (n, (rows, exact)) in [dq, dk, dv].into_iter().zip(exact).enumerate() {
            let got = rows.taken(&fetched, n, types[n])?;
            if let Some(found) = fault(["dq", "dk", "dv"][n], exact, got) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What a kernel may give.
    fn exact(
        &self,
        (forward, plan): (&AttentionPlan, &BackwardPlan),
        dout: &[O],
        storage: ElementType,
    ) -> Result<BoundedGradients> {
        let transposed = self.parts.transpose()?;
        let order = |at: Position| self.parts.key_order(at.batch, at.head, at.i);
        let tiles = |at: Position| self.parts.key_tiles(at.batch, at.head, at.i);
        let query_tiles = |at: Position| transposed.key_tiles(at.batch, at.head, at.i);
        let options = BoundOptions::default().order(&order).tiles(&tiles).query_tiles(&query_tiles);
        let options = options.weights(WeightFormat::of(forward.path().path)).path(plan.path().path);
        let options = options.storage(storage);
        bounded(self.attention, &self.tensors.inputs(), dout, self.pattern, options)
    }
}

/// A gradient of out, contiguous, whose values are the same in its own type and in that of out, which the reference takes.
pub(super) fn dout(attention: &Attention, stored: &Gradients) -> Vec<f64> {
    let (draw, types) = (Counter::new(1, 21), [stored.dout, attention.storage.out]);
    let [batch, heads, len] = attention.shape.query_rows();
    let len = batch * heads * len * attention.shape.value_dim;
    (0..len as u64).map(|n| rounded(draw.normal(n), types)).collect()
}

/// How dq, dk, dv and the gradient of out lie.
pub(super) fn rows(attention: &Attention, stored: &Gradients) -> [Rows; 4] {
    let shape = &attention.shape;
    let (queries, keys) = (shape.query_rows(), shape.key_rows());
    [
        Rows::new(stored.dq_layout, queries, shape.head_dim),
        Rows::new(stored.dk_layout, keys, shape.head_dim),
        Rows::new(stored.dv_layout, keys, shape.value_dim),
        Rows::new(stored.dout_layout, queries, shape.value_dim),
    ]
}

/// What is wrong with a gradient, contiguous.
pub(super) fn fault(name: &str, exact: &Bounded, got: Vec<f64>) -> Option<String> {
    let found = exact.compare(got, 0.0);
    if found.pass {
        return None;
    }
    Some(match found.worst {
        Some(worst) => format!(
            "FAIL, {name}[{}] of {}: got {:e}, expected {:e}, {:.3} times its bound",
            worst.index, found.elements, worst.got, worst.expected, worst.ratio
        ),
        None => format!("FAIL, {name}: no element of {} could be compared", found.elements),
    })
}
