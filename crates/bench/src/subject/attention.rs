//! Attention under any pattern.

use super::{Bytes, Subject, check_attention, check_terms, sample, tensors, term_bytes, verification};
use crate::call::{Call, checked};
use crate::check::{Against, check};
use crate::record::Cost;
use anyhow::Result;
use std::rc::Rc;
use wgpu_attention::{AnyPattern, Attention, BlockGrid, Element, Gpu, Kernels, Parts};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    kernels: &Kernels,
    attention: &Attention,
    pattern: AnyPattern,
) -> Result<Subject<'g>> {
    let (attention, shape) = (attention.clone(), attention.shape);
    check_attention(gpu, &attention)?;
    let [q, k, v, out] = [attention.len_q(), attention.len_k(), attention.len_v(), attention.len_out()];
    check_terms(gpu, &attention)?;
    let parts = Parts::lower(&pattern, BlockGrid::from(&shape))?;
    let plan = checked(gpu.device(), "plan", || kernels.attention_parts(&attention, &parts)).await??;
    let tensors = tensors::<E>(&attention)?;
    let call = Rc::new(Call::upload(gpu, &plan, &tensors.inputs(), false).await?);
    let explained = plan.explain();
    let bytes = Bytes {
        tensors: ((q + k + v + out) * E::TYPE.size_bytes()) as u64 + term_bytes(&attention),
        mask: explained.mask_bytes,
        scratch: explained.scratch_bytes,
    };
    let cost = Cost {
        useful_flop: attention.flops(explained.kept),
        executed_flop: explained.flops,
        kept_pairs: Some(explained.kept),
        visited_pairs: Some(explained.visited),
        block_waste: Some(parts.waste()),
        ..Cost::new(0.0, bytes, explained.dispatches)
    };
    let written = call.clone();
    let path = plan.path().path;
    let verify = async move {
        let rows = sample(shape.len_lse(), (attention.flops(shape.kv_len as u64) / 2.0) as usize);
        let output = written.read::<E>().await?;
        let pattern = (&pattern as _, Some((&parts, path)));
        let report = check(&attention, &tensors.inputs(), pattern, output.got(), rows, Against::Reference)?;
        Ok(verification(&report, shape.len_lse()))
    };
    Ok(Subject {
        path: path.to_string(),
        shaders: plan.shaders(),
        cost,
        gpu,
        dispatch: Box::new(move |pass| call.dispatch(pass)),
        verify: Box::pin(verify),
    })
}
