//! Numbers that are none: the rows that attend them are not finite, the others stay as they are.

use crate::support::{Case, Outcome, failed, run};
use wgpu_attention::reference::Tensors;
use wgpu_attention::{Buckets, Element, Gpu, Score, Site, Temperature};

/// NaN or infinity in a key, and NaN in a value, that only some rows attend.
pub(crate) fn in_inputs<E: Element>(gpu: &Gpu, case: &Case) -> Result<(), String> {
    let (attention, shape) = (&case.attention, &case.attention.shape);
    let result = |tensors: &Tensors<E>| {
        let got = run::<E, E, f32>(gpu, attention, &tensors.inputs(), &case.parts(), true);
        got.map_err(|e| failed("guards", case, e))
    };
    let tensors = case.tensors::<E, E>();
    let before = result(&tensors)?;
    let key = 70;
    let all =
        [("infinity in k", f64::INFINITY, true), ("NaN in k", f64::NAN, true), ("NaN in v", f64::NAN, false)];
    for (what, x, in_key) in all {
        let mut spoilt = tensors.clone();
        for kv_head in 0..shape.kv_heads {
            if in_key {
                let at = attention.k_strides().at(0, kv_head, key);
                spoilt.k[at] = E::from_f64(x);
            } else {
                let at = attention.v_strides().at(0, kv_head, key);
                spoilt.v[at..at + shape.value_dim].fill(E::from_f64(x));
            }
        }
        let after = result(&spoilt)?;
        for (head, i) in (0..shape.heads).flat_map(|head| (0..shape.q_len).map(move |i| (head, i))) {
            let row = |got: &Outcome<f32>| {
                let at = attention.out_strides().at(0, head, i);
                let lse = got.lse.as_ref().expect("asked for")[head * shape.q_len + i];
                [&got.out[at..at + shape.value_dim], &[lse]].concat()
            };
            let (before, after) = (row(&before), row(&after));
            let attends =
                case.pattern.as_dyn().keep(&Site { batch: 0, head, extent: shape.extent() }, i, key);
            let right = match attends {
                true => after.iter().all(|x| !x.is_finite()),
                false => before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()),
            };
            if !right {
                let what =
                    format!("{what} of key {key}, which it attends: {attends}; head {head}, query {i}");
                return Err(failed("strange", case, what));
            }
        }
    }
    Ok(())
}

/// In the tensor of a term, at head 1, whose rows all read it: under a cap, and where the score is minus infinity.
pub(crate) fn in_terms(gpu: &Gpu, full: &Case) -> Result<(), String> {
    let (cap, infinity) = (Score::new().softcap(3.0), f32::NEG_INFINITY);
    for (score, name, x) in [
        (cap.with(Temperature), "temperature", f32::NAN),
        (Score::new().with(Buckets::new(2, 4)), "bucket_table", infinity),
    ] {
        let case = full.clone().score(score);
        let (heads, rows) = (case.attention.shape.heads, case.attention.shape.q_len);
        let mut spoilt = case.tensors::<f32, f32>();
        // Of both buckets.
        let tensor = spoilt.term_mut(name).expect("a tensor of the score");
        tensor.iter_mut().skip(1).step_by(heads).for_each(|value| *value = x);
        let got = run::<f32, f32, f32>(gpu, &case.attention, &spoilt.inputs(), &case.parts(), true);
        let lse = got.map_err(|e| failed("guards", &case, e))?.lse.expect("asked for");
        let right = |(n, lse): (usize, &f32)| lse.is_finite() != (n / rows % heads == 1);
        if !lse.iter().enumerate().all(right) {
            return Err(failed("strange terms", &case, format!("{x} in {name} of head 1: lse {lse:?}")));
        }
    }
    Ok(())
}
