//! LSH attention on the device against the reference, and its gradients.

use super::gradients::{dout, fault, rows};
use super::rows::Rows;
use super::subject::ROWS;
use super::{Judged, Unjudged};
use crate::gpu::{LshBackwardPlan, LshOutput, LshPlan};
use crate::reference::{self, Kind, LshGot, Tensors};
use crate::{Counter, Element, Gpu, LshInputs, Projections, Result};

impl Gpu {
    pub(super) async fn judge_lsh(&self, small: Result<LshPlan>) -> Judged {
        let small = &small.map_err(Unjudged::of_small)?;
        let storage = small.attention().storage;
        typed!(storage.q, I => typed!(storage.out, O => Ok(self.lsh_rows::<I, O>(small).await?)))
    }

    async fn lsh_rows<I: Element, O: Element>(&self, small: &LshPlan) -> Result<Option<String>> {
        let given = Given::<I>::new(small)?;
        let LshOutput { out, lse, buckets, order } = self.run_lsh::<I, O>(small, &given.inputs()).await?;
        let got = LshGot::new(&out, &buckets).lse(&lse[..]).order(&order[..]);
        let rows = reference::Rows::Sample { count: ROWS, seed: 1 };
        let report =
            reference::verify_lsh(small.attention(), small.options(), &given.inputs(), got, rows, None)?;
        Ok((!report.pass).then(|| report.to_string()))
    }

    pub(super) async fn judge_lsh_backward(&self, small: Result<(LshPlan, LshBackwardPlan)>) -> Judged {
        let (forward, plan) = &small.map_err(Unjudged::of_small)?;
        let storage = forward.attention().storage;
        typed!(storage.q, I => typed!(storage.out, O => Ok(self.lsh_gradients::<I, O>(forward, plan).await?)))
    }

    async fn lsh_gradients<I: Element, O: Element>(
        &self,
        forward: &LshPlan,
        plan: &LshBackwardPlan,
    ) -> Result<Option<String>> {
        let (attention, options, stored) = (forward.attention(), forward.options(), plan.gradients());
        let given = Given::<I>::new(forward)?;
        let dout = dout(attention, stored);
        let [dqk, _, dv, of_dout] = rows(attention, stored);
        let on_device = of_dout.uploaded(self, &dout, stored.dout)?;
        let fetched = self.run_lsh_backward((forward, plan), &given.inputs(), &on_device).await?;
        let buckets: Vec<u32> = fetched.take(2, options.len_buckets(&attention.shape))?;
        let known = reference::lsh_buckets(attention, options, &given.inputs())?;
        let wrong = |n: &usize| known.certain[*n] && known.buckets[*n] != buckets[*n];
        if let Some(n) = (0..buckets.len()).find(wrong) {
            return Ok(Some(format!("FAIL, bucket {n}: got {}, expected {}", buckets[n], known.buckets[n])));
        }
        let of_out =
            Rows::new(attention.layouts.out, attention.shape.query_rows(), attention.shape.value_dim);
        let dout: Vec<O> = of_out.spread(&dout);
        let (inputs, types) = (given.inputs(), [stored.dq, stored.dkv]);
        let exact =
            |storage| reference::bounded_lsh_gradient(attention, options, &inputs, &dout, &buckets, storage);
        let by_rows = exact(types[0])?;
        let by_values = if types[0] == types[1] { by_rows.clone() } else { exact(types[1])? };
        let found = fault("dqk", &by_rows.dqk, dqk.taken(&fetched, 0, types[0])?);
        Ok(found.or(fault("dv", &by_values.dv, dv.taken(&fetched, 1, types[1])?)))
    }
}

/// The tensors of a small call.
struct Given<I> {
    tensors: Tensors<I>,
    projections: Option<Vec<f32>>,
    key_mask: Option<Vec<bool>>,
}

impl<I: Element> Given<I> {
    fn new(plan: &LshPlan) -> Result<Self> {
        let (attention, options) = (plan.attention(), plan.options());
        let draw = Counter::new(1, 22);
        let len = options.len_projections(&attention.shape) as u64;
        let given = matches!(options.projections, Projections::Given { .. });
        Ok(Self {
            tensors: reference::random::<I, I>(attention, Kind::Normal, 1)?,
            projections: given.then(|| (0..len).map(|n| draw.normal(n) as f32).collect()),
            key_mask: options
                .key_mask
                .then(|| (0..options.len_key_mask(&attention.shape)).map(|j| j % 5 != 3).collect()),
        })
    }

    fn inputs(&self) -> LshInputs<'_, I> {
        let inputs = LshInputs {
            projections: self.projections.as_deref(),
            key_mask: self.key_mask.as_deref(),
            ..LshInputs::new(&self.tensors.q, &self.tensors.v)
        };
        self.tensors.terms.iter().fold(inputs, |inputs, (name, values)| inputs.tensor(name, values))
    }
}
