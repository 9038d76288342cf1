//! Attention under any pattern.

use super::{Bytes, Subject, check_sizes, sample, verification};
use crate::call::{Call, checked};
use crate::check::{Against, check};
use crate::record::Cost;
use anyhow::Result;
use std::rc::Rc;
use wgpu_attention::reference::{Kind, random};
use wgpu_attention::{AnyPattern, AttentionShape, BlockGrid, Element, Gpu, Parts};

pub(super) async fn prepare<'g, E: Element>(
    gpu: &'g Gpu,
    shape: &AttentionShape,
    pattern: AnyPattern,
) -> Result<Subject<'g>> {
    let shape = *shape;
    let tensors =
        [("q", shape.len_q()), ("k", shape.len_k()), ("v", shape.len_v()), ("out", shape.len_out())];
    check_sizes(gpu, &tensors, shape.input)?;
    let parts = Parts::lower(&pattern, BlockGrid::from(&shape))?;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().attention(&shape, &parts)).await??;
    let tensors = random::<E>(&shape, Kind::Normal, 1)?;
    let call = Rc::new(Call::upload(gpu, &plan, &tensors.inputs(), false).await?);
    let explained = plan.explain();
    let elements = shape.len_q() + shape.len_k() + shape.len_v() + shape.len_out();
    let bytes = Bytes {
        tensors: (elements * shape.input.size_bytes()) as u64,
        mask: explained.mask_bytes,
        scratch: explained.scratch_bytes,
    };
    let cost = Cost {
        useful_flop: shape.flops(explained.kept),
        executed_flop: explained.flops,
        kept_pairs: Some(explained.kept),
        visited_pairs: Some(explained.visited),
        block_waste: Some(parts.waste()),
        ..Cost::new(0.0, bytes, explained.dispatches)
    };
    let written = call.clone();
    let path = plan.path().path;
    let verify = async move {
        let rows = sample(shape.len_lse(), shape.kv_len * (shape.head_dim + shape.value_dim));
        let output = written.read::<E>().await?;
        let pattern = (&pattern as _, Some((&parts, path)));
        let report = check(&shape, &tensors.inputs(), pattern, &output, rows, Against::Reference)?;
        Ok(verification(&report, shape.len_lse()))
    };
    Ok(Subject {
        path: path.to_string(),
        cost,
        gpu,
        dispatch: Box::new(move |pass| call.dispatch(pass)),
        verify: Box::pin(verify),
    })
}
