//! Cases of LSH attention: hash, sort, chunks, merging; and of its gradients.

use anyhow::{Result, ensure};
use half::{bf16, f16};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::{Kind, LshGot, Rows, bounded_lsh_gradient, random, verify_lsh};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionShape, Counter, Element, LshBuffers, LshGradBuffers, LshInputs, LshOptions, Options, Storage,
};

use crate::bench::Bench;
use crate::cases::{Case, Set};
use crate::tensor::Tensor;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let base = LshOptions::new(3, 8, 16);
    let masked = base.clone().key_mask(true).causal(true);
    let once = LshOptions::new(2, 8, 12).count_once(true).within_bucket(true).wrap(false).look_ahead(1);
    let factors = LshOptions::new(2, 2, 16).buckets(vec![2, 6, 4]).chain_rounds(false);
    let one = LshOptions::new(1, 8, 64);
    let list = [
        (Set::Tiny, "few positions", 9, 4, LshOptions::new(2, 2, 4)),
        (Set::Small, "3 rounds", 130, 16, base),
        (Set::Small, "key mask, causal", 130, 16, masked),
        (Set::Full, "pairs once, within buckets", 130, 16, once),
        (Set::Full, "factorised buckets", 130, 7, factors),
        (Set::Full, "one round, chunks of 64", 130, 64, one),
    ];
    let mut cases = Vec::new();
    // Of one round, for half of the kernels; all others in the whole table alone: some compilers take half a minute for each.
    let few = (Set::Tiny, "few positions", 9, 4, LshOptions::new(1, 2, 4));
    let others = list.iter().skip(1).map(|case| (Set::Full, case.1, case.2, case.3, case.4.clone()));
    for (set, name, len, head_dim, options) in std::iter::once(few).chain(others) {
        let run = move |bench: &Bench| gradients(bench, [len, head_dim], &options);
        let name = name.into();
        cases.push(Case { kernel: "LSH gradients", element: F32, name, set, run: Box::new(run) });
    }
    for element in [F32, F16, Bf16] {
        for (set, name, len, head_dim, options) in list.clone() {
            // The kernels differ in how they read elements, and no more.
            let set = match element {
                F32 => set,
                F16 => set.max(Set::Small),
                Bf16 => Set::Full,
            };
            let run = move |bench: &Bench| run(bench, element, [len, head_dim], &options);
            let name = name.into();
            cases.push(Case { kernel: "LSH attention", element, name, set, run: Box::new(run) });
        }
    }
    cases
}

fn run(
    bench: &Bench,
    element: ElementType,
    [len, head_dim]: [usize; 2],
    options: &LshOptions,
) -> Result<f64> {
    match element {
        F32 => typed::<f32>(bench, [len, head_dim], options),
        F16 => typed::<f16>(bench, [len, head_dim], options),
        Bf16 => typed::<bf16>(bench, [len, head_dim], options),
    }
}

fn typed<E: Element>(bench: &Bench, [len, head_dim]: [usize; 2], options: &LshOptions) -> Result<f64> {
    let shape = AttentionShape::new(2, 2, len, head_dim);
    let attention = shape.storage(Storage::all(E::TYPE));
    let tensors = random::<E, E>(&attention, Kind::Normal, 3)?;
    let seen = seen(&shape);
    let key_mask = options.key_mask.then_some(&seen[..]);
    let inputs = LshInputs::new(&tensors.q, &tensors.v).key_mask(key_mask);

    let words: Vec<u32> = seen.iter().map(|&seen| seen.into()).collect();
    let mask = key_mask.map(|_| Tensor::words(bench, &words));
    let (qk, v) = (Tensor::elements(bench, &tensors.q), Tensor::elements(bench, &tensors.v));
    let places = options.len_buckets(&shape);
    let outputs = [
        Tensor::output(bench, shape.len_out(), E::TYPE),
        Tensor::output(bench, shape.len_lse(), F32),
        Tensor::output(bench, places, F32),
        Tensor::output(bench, places, F32),
    ];
    let [out, lse, buckets, order] = &outputs;
    let mut buffers = LshBuffers::new(qk.binding(), v.binding(), out.binding())
        .lse(lse.binding())
        .buckets(buckets.binding())
        .order(order.binding());
    if let Some(mask) = &mask {
        buffers = buffers.key_mask(mask.binding());
    }
    let call = bench.kernels().lsh(&attention, options.clone())?.bind(buffers)?;
    let written = outputs.each_ref().map(|tensor| &tensor.buffer);
    let bytes = bench.run(|encoder| call.encode(encoder), &written)?;
    let out: Vec<E> = bytemuck::pod_collect_to_vec(out.take(&bytes[0])?);
    let lse: Vec<f32> = bytemuck::pod_collect_to_vec(lse.take(&bytes[1])?);
    let buckets: Vec<u32> = bytemuck::pod_collect_to_vec(buckets.take(&bytes[2])?);
    let order: Vec<u32> = bytemuck::pod_collect_to_vec(order.take(&bytes[3])?);
    let got = LshGot::new(&out, &buckets).lse(&lse[..]).order(&order[..]);
    let report = verify_lsh(&attention, options, &inputs, got, Rows::All, None)?;
    ensure!(report.pass && report.attention.unspecified == 0, "{report}");
    let both = [report.attention.worst_out, report.attention.worst_lse];
    Ok(both.into_iter().flatten().map(|worst| worst.ratio).fold(0.0, f64::max))
}

/// Keys that are not masked.
fn seen(shape: &AttentionShape) -> Vec<bool> {
    let draw = Counter::new(3, 99);
    (0..shape.batch * shape.q_len).map(|n| draw.below(n as u64, 4) > 0).collect()
}

/// dqk and dv after a forward call.
fn gradients(bench: &Bench, [len, head_dim]: [usize; 2], options: &LshOptions) -> Result<f64> {
    let shape = AttentionShape::new(2, 2, len, head_dim);
    let tensors = random::<f32, f32>(shape, Kind::Normal, 3)?;
    let dout = random::<f32, f32>(shape, Kind::Normal, 4)?.v;
    let seen = seen(&shape);
    let key_mask = options.key_mask.then_some(&seen[..]);
    let inputs = LshInputs::new(&tensors.q, &tensors.v).key_mask(key_mask);

    let words: Vec<u32> = seen.iter().map(|&seen| seen.into()).collect();
    let mask = key_mask.map(|_| Tensor::words(bench, &words));
    let (qk, v) = (Tensor::elements(bench, &tensors.q), Tensor::elements(bench, &tensors.v));
    let d_out = Tensor::elements(bench, &dout);
    let lens =
        [shape.len_out(), 2 * shape.len_lse(), options.len_buckets(&shape), shape.len_q(), shape.len_v()];
    let outputs = lens.map(|len| Tensor::output(bench, len, F32));
    let [out, state, buckets, dqk, dv] = &outputs;
    let mut forward = LshBuffers::new(qk.binding(), v.binding(), out.binding())
        .state(state.binding())
        .buckets(buckets.binding());
    let (out, state, d_out) = (out.binding(), state.binding(), d_out.binding());
    let mut backward =
        LshGradBuffers::new(qk.binding(), v.binding(), out, state, d_out).dqk(dqk.binding()).dv(dv.binding());
    if let Some(mask) = &mask {
        (forward, backward) = (forward.key_mask(mask.binding()), backward.key_mask(mask.binding()));
    }
    // The tile for GPUs: some compilers take minutes for the other.
    let gpu = bench.with(Options::default().tile_kind(TileKind::Staged))?;
    let plan = gpu.kernels().lsh(shape, options.clone())?;
    let (forward, backward) = (plan.bind(forward)?, plan.backward()?.bind(backward)?);
    let written = outputs.each_ref().map(|tensor| &tensor.buffer);
    let record = |encoder: &mut wgpu::CommandEncoder| {
        forward.encode(encoder);
        backward.encode(encoder);
    };
    let bytes = bench.run(record, &written)?;
    let buckets: Vec<u32> = bytemuck::pod_collect_to_vec(buckets.take(&bytes[2])?);
    let exact = bounded_lsh_gradient(shape, options, &inputs, &dout, &buckets, F32)?;
    let mut worst = 0f64;
    for (name, tensor, bytes, exact) in [("dqk", dqk, &bytes[3], exact.dqk), ("dv", dv, &bytes[4], exact.dv)]
    {
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.take(bytes)?);
        let found = exact.compare(got, 0.0);
        ensure!(found.pass && found.unspecified == 0, "{name}: {found}");
        worst = found.worst.map_or(worst, |place| worst.max(place.ratio));
    }
    Ok(worst)
}
