use super::case::Case;
use super::draw::Draw;
use super::guards::{Extents, Guarded, GuardedInputs};
use super::run::read;
use wgpu_attention::reference::{self, Tensors, WeightFormat, row_weights};
use wgpu_attention::{
    Attention, AttentionBuffers, Element, Gpu, Inputs, Parts, Position, WeightsBuffers, WeightsOptions,
};

/// The weights and summaries that the kernels write for these rows, as the bits that they are; each empty where it is not asked for. Outputs
/// poisoned, poison around all tensors and between their rows.
pub fn run_weights<Q: Element, KV: Element>(
    gpu: &Gpu,
    attention: &Attention,
    inputs: &Inputs<'_, Q, KV>,
    parts: &Parts,
    rows: &[Position],
    options: WeightsOptions,
) -> Result<[Vec<u32>; 2], String> {
    let device = gpu.device();
    let own = GuardedInputs::new(device, attention, inputs);
    let out = Guarded::of_rows(device, "out", attention.storage.out.size_bytes(), attention);
    let state = Guarded::output(device, "state", 4, Extents::of_one_row(2 * attention.len_lse()));

    let refused = |e| -> ! { panic!("{e}\n{attention:?}") };
    let plan = gpu.kernels().attention_parts(attention, parts).unwrap_or_else(|e| refused(e));
    let mut buffers = AttentionBuffers::new(own.q.binding(), own.k.binding(), own.v.binding(), out.binding());
    buffers.tensors = own.tensors();
    let forward = plan.bind(buffers.state(state.binding())).unwrap_or_else(|e| refused(e));

    let plan = plan.weights(rows, options).unwrap_or_else(|e| refused(e));
    let weights = options
        .matrix
        .then(|| Guarded::output(device, "weights", 4, Extents::of_one_row(plan.len_weights())));
    let summaries = options
        .summary
        .map(|_| Guarded::output(device, "summaries", 4, Extents::of_one_row(plan.len_summaries())));
    let mut buffers = WeightsBuffers::new(own.q.binding(), own.k.binding(), state.binding());
    buffers.tensors = own.tensors();
    buffers.weights = weights.as_ref().map(Guarded::binding);
    buffers.summaries = summaries.as_ref().map(Guarded::binding);
    let call = plan.bind(buffers).unwrap_or_else(|e| refused(e));

    let written: Vec<&Guarded> = weights.iter().chain(&summaries).collect();
    let bytes = read(gpu, &written, |encoder| {
        forward.encode(encoder);
        call.encode(encoder);
    });
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let mut each = written.iter().zip(&bytes).map(|(tensor, bytes)| tensor.take::<f32>(bytes).map(bits));
    let mut next = |there: bool| if there { each.next().unwrap_or(Ok(vec![])) } else { Ok(vec![]) };
    Ok([next(options.matrix)?, next(options.summary.is_some())?])
}

/// The first and the last row, and some between; one twice.
fn rows(case: &Case) -> Vec<Position> {
    let shape = &case.attention.shape;
    let mut draw = Draw::new(case.seed, 51);
    let mut rows: Vec<_> = [0, shape.len_lse() - 1].into_iter().map(|n| Position::of_row(shape, n)).collect();
    rows.extend((0..6).map(|_| Position::of_row(shape, draw.below(shape.len_lse()))));
    rows.push(rows[2]);
    rows
}

/// Weights and summaries of some rows over these parts.
pub fn weights_on(gpu: &Gpu, case: &Case, parts: &Parts, options: WeightsOptions) -> Result<(), String> {
    crate::typed!(case.attention.storage, weights_typed(gpu, case, parts, options))
        .map_err(|e| format!("{e}\n{case}"))
}

fn weights_typed<Q: Element, KV: Element, O: Element>(
    gpu: &Gpu,
    case: &Case,
    parts: &Parts,
    options: WeightsOptions,
) -> Result<(), String> {
    let _ = O::TYPE; // the call's out, which nobody reads
    let tensors: Tensors<Q, KV> = case.tensors();
    let (inputs, rows) = (tensors.inputs(), rows(case));
    let path = gpu.kernels().attention_parts(&case.attention, parts).map_err(|e| e.to_string())?.path().path;
    let [weights, summaries] = run_weights(gpu, &case.attention, &inputs, parts, &rows, options)?;
    let len = case.attention.shape.kv_len;
    let order = |at: Position| parts.key_order(at.batch, at.head, at.i);
    for (n, &at) in rows.iter().enumerate() {
        let format = WeightFormat::of(path);
        let exact = row_weights(&case.attention, &inputs, case.pattern.as_dyn(), at, Some(&order), format);
        let exact = exact.unwrap_or_else(|e| panic!("{e}\n{case}"));
        let own = options.matrix.then(|| &weights[n * len..(n + 1) * len]);
        if let Some(own) = own {
            let got = exact.keys.iter().map(|&j| f32::from_bits(own[j as usize]));
            let found = exact.weights.compare(got, 0.0);
            if !found.pass || found.unspecified > 0 {
                return Err(format!("weights of {at}: {found}"));
            }
            let left_out = |j: &usize| exact.keys.binary_search(&(*j as u32)).is_err() && own[*j] != 0;
            if let Some(j) = (0..len).find(left_out) {
                return Err(format!("{at} does not attend key {j}, whose weight is {:x}", own[j]));
            }
        }
        if let Some(top) = options.summary {
            let words = &summaries[2 * n * (1 + top)..2 * (n + 1) * (1 + top)];
            summary(&exact, words, own).map_err(|e| format!("{at}: {e}"))?;
        }
    }
    Ok(())
}

/// The entropy within its bound, the exact count, and the keys of the largest weights as written, or within their bounds.
fn summary(exact: &reference::RowWeights, words: &[u32], weights: Option<&[u32]>) -> Result<(), String> {
    let found = exact.entropy.compare([f32::from_bits(words[0])], 0.0);
    if !found.pass {
        return Err(format!("entropy: {found}"));
    }
    if words[1] as usize != exact.keys.len() {
        return Err(format!("{} keys, not {}", words[1], exact.keys.len()));
    }
    let top: Vec<(u32, u32)> = words[2..].chunks(2).map(|pair| (pair[1], pair[0])).collect();
    let weight = |key: u32| match weights {
        Some(weights) => weights[key as usize],
        None => top.iter().find(|(_, own)| *own == key).map_or(0, |(bits, _)| *bits),
    };
    let mut all: Vec<(u32, u32)> = exact.keys.iter().map(|&key| (weight(key), key)).collect();
    all.retain(|(bits, _)| *bits != 0);
    all.sort_by_key(|&(bits, key)| (std::cmp::Reverse(bits), key));
    all.resize(all.len().max(top.len()), (0, u32::MAX));
    if top != all[..top.len()] {
        return Err(format!("the largest are {:?}, not {top:?}", &all[..top.len()]));
    }
    let smallest = top.last().map_or(0.0, |(bits, _)| f32::from_bits(*bits).into());
    // Without the weights: no other key may be surely larger than the last one named.
    let larger =
        exact.keys.iter().zip(&exact.weights.out).zip(&exact.weights.bound).find(|((key, p), bound)| {
            !top.iter().any(|(_, own)| own == *key) && **p - **bound > smallest + **bound
        });
    match larger {
        Some(((key, p), _)) if !top.is_empty() => Err(format!("key {key} of weight {p} is not named")),
        _ => Ok(()),
    }
}
