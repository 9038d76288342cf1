//! The gradients of attention by q, k and v, under any pattern: the records of the queries and both passes, after a forward call that is
//! not timed.

use super::{Bytes, Subject, check_sizes, check_terms, term_bytes};
use crate::call::{Backward, checked};
use crate::record::{Cost, Verification};
use anyhow::Result;
use std::rc::Rc;
use wgpu_attention::reference::gradient::{BoundOptions, bounded};
use wgpu_attention::reference::layer::Difference;
use wgpu_attention::reference::{Kind, Position, WeightFormat, random};
use wgpu_attention::{AnyPattern, Attention, BlockGrid, Counter, Element, Gpu, Parts};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    attention: &Attention,
    pattern: AnyPattern,
) -> Result<Subject<'g>> {
    let (attention, shape) = (attention.clone(), attention.shape);
    let [q, k, v, out] = [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    check_sizes(gpu, &[("q", q), ("k", k), ("v", v), ("out", out)], E::TYPE)?;
    check_terms(gpu, &attention)?;
    let parts = Parts::lower(&pattern, BlockGrid::from(&shape))?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().attention_parts(&attention, &parts)).await??;
    let backward = checked(gpu.device(), "backward plan", || plan.backward()).await??;
    let tensors = random::<E, E>(&attention, Kind::Normal, 1)?;
    let draw = Counter::new(1, 21);
    let dout: Vec<E> = (0..out as u64).map(|n| E::from_f64(draw.normal(n))).collect();
    let call = Rc::new(Backward::upload(gpu, &plan, &backward, &tensors.inputs(), &dout).await?);
    let explained = backward.explain();
    let bytes = Bytes {
        // With out and its gradient, dq, dk and dv, and (m, l) of each query.
        tensors: (2 * (q + k + v + out) * E::TYPE.size_bytes() + 8 * shape.len_lse()) as u64
            + term_bytes(&attention),
        mask: explained.mask_bytes + plan.explain().mask_bytes,
        scratch: explained.scratch_bytes,
    };
    let cost = Cost {
        useful_flop: attention.backward_flops(explained.kept),
        executed_flop: explained.flops,
        kept_pairs: Some(explained.kept),
        visited_pairs: Some(explained.visited),
        block_waste: Some(parts.waste()),
        ..Cost::new(0.0, bytes, explained.dispatches)
    };
    let path = plan.path().path;
    let written = call.clone();
    let verify = async move {
        let got = written.read::<E>().await?;
        let transposed = parts.transpose()?;
        let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
        let tiles = |at: Position| parts.key_tiles(at.batch, at.head, at.i);
        let query_tiles = |at: Position| transposed.key_tiles(at.batch, at.head, at.i);
        let options = BoundOptions::default().order(&order).tiles(&tiles).query_tiles(&query_tiles);
        let options = options.weights(WeightFormat::of(path)).storage(E::TYPE);
        let exact = bounded(&attention, &tensors.inputs(), &dout, &pattern, options)?;
        let names = ["dq", "dk", "dv"];
        let compared = got.iter().zip([&exact.dq, &exact.dk, &exact.dv]);
        let compared: Vec<_> = compared.map(|(got, exact)| exact.compare(got.iter().copied(), 0.0)).collect();
        let worst = names.iter().zip(&compared).filter_map(|(name, it)| Some((*name, it.worst?)));
        let worst = worst.max_by(|a, b| a.1.ratio.total_cmp(&b.1.ratio));
        let rows = shape.len_lse() + 2 * shape.batch * shape.kv_heads * shape.kv_len;
        let pass = compared.iter().all(|it| it.pass && it.unspecified == 0 && it.compared > 0);
        Ok(verification(pass, rows, worst))
    };
    Ok(Subject {
        path: path.to_string(),
        cost,
        gpu,
        dispatch: Box::new(move |pass| call.dispatch(pass)),
        verify: Box::pin(verify),
    })
}

/// Every element is compared.
fn verification(pass: bool, rows: usize, worst: Option<(&str, Difference)>) -> Verification {
    let finite = |x: f64| x.is_finite().then_some(x);
    Verification {
        pass,
        rows,
        of_rows: rows,
        worst_ratio: worst.and_then(|(_, worst)| finite(worst.ratio)),
        worst_error: worst.and_then(|(_, worst)| finite((worst.got - worst.expected).abs())),
        worst_bound: worst.and_then(|(_, worst)| finite(worst.bound)),
        worst_at: worst.map(|(name, worst)| format!("{name}[{}]", worst.index)),
    }
}
