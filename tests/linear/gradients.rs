//! Gradients: elements within their bounds, the reference itself, sums that are integers, bad input.

use super::{Case, maps, shape};
use half::{bf16, f16};
use wgpu_attention::reference::layer::{Bounded, Comparison};
use wgpu_attention::reference::{self, BoundedLinearGradients, Kind};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionShape, Counter, Element, ElementType, Error, FeatureMap, Gpu, Layout, LinearGradBuffers,
    LinearGradients, LinearOptions, LinearState, Options, Projection, Stabiliser, Strides,
};
use wgpu_attention_testing::{Placement, gpu, gpu_with, read, storage};

/// The gradient of out, lying as out does.
fn dout<E: Element>(case: &Case<E>, seed: u64) -> Vec<E> {
    let draw = Counter::new(seed, 55);
    (0..case.attention.len_out() as u64).map(|n| E::from_f64(draw.normal(n))).collect()
}

fn run<E: Element>(gpu: &Gpu, case: &Case<E>, dout: &[E]) -> Result<LinearGradients<E>, String> {
    let run = gpu.linear_backward(&case.attention, &case.options, &case.inputs(), dout);
    run.map_err(|e| format!("{:?}: {e}", case.options))
}

fn exact<E: Element>(case: &Case<E>, dout: &[E]) -> BoundedLinearGradients {
    reference::linear_gradient(&case.attention, &case.options, &case.inputs(), dout, E::TYPE).expect("valid")
}

/// The rows of a tensor, without the gaps.
pub(super) fn rows<E: Copy>(data: &[E], strides: Strides, [b, h, l]: [usize; 3], dim: usize) -> Vec<E> {
    let row = |n: usize| &data[strides.at(n / l / h, n / l % h, n % l)..][..dim];
    (0..b * h * l).flat_map(row).copied().collect()
}

/// Every element within its bound, and something promised of each.
fn check_on<E: Element>(gpu: &Gpu, case: &Case<E>, seed: u64) -> Result<[Comparison; 3], String> {
    let dout = dout(case, seed);
    let (got, want) = (run(gpu, case, &dout)?, exact(case, &dout));
    let (attention, shape) = (&case.attention, &case.attention.shape);
    let (queries, keys) =
        ([shape.batch, shape.heads, shape.q_len], [shape.batch, shape.kv_heads, shape.kv_len]);
    let found = [
        ("dq", &want.dq, rows(&got.dq, attention.q_strides(), queries, shape.head_dim)),
        ("dk", &want.dk, rows(&got.dk, attention.k_strides(), keys, shape.head_dim)),
        ("dv", &want.dv, rows(&got.dv, attention.v_strides(), keys, shape.value_dim)),
    ];
    let compared = found.map(|(name, want, got): (_, &Bounded, Vec<E>)| {
        let comparison = want.compare(got.iter().copied(), 0.0);
        match comparison.pass && comparison.unspecified == 0 {
            true => Ok(comparison),
            false => Err(format!("{name}: {comparison}\n{:?} {:?}", case.attention, case.options)),
        }
    });
    let [dq, dk, dv] = compared;
    Ok([dq?, dk?, dv?])
}

fn check<E: Element>(case: &Case<E>) -> String {
    let found = check_on(gpu(), case, 3).unwrap_or_else(|e| panic!("{e}"));
    found.map(|comparison| format!("{:.4}", comparison.worst.map_or(0.0, |worst| worst.ratio))).join(" ")
}

/// Values of one sign for features that are not bounded below: their denominators would come near 0.
fn case<E: Element>(
    shape: impl Into<wgpu_attention::Attention>,
    options: LinearOptions,
    kind: Kind,
) -> Case<E> {
    let mut case = Case::<E>::new(shape, options, kind, 5);
    if case.options.map == FeatureMap::Identity {
        let away = |x: &mut E| *x = E::from_f64((*x).into().abs() + 0.25);
        case.q.iter_mut().chain(&mut case.k).for_each(away);
    }
    case
}

fn causal(map: FeatureMap) -> LinearOptions {
    LinearOptions::new(map).causal(true)
}

/// Every map that has gradients, causal and not.
fn each() -> Vec<(String, LinearOptions)> {
    let both = maps().into_iter().flat_map(|(name, map)| {
        [false, true]
            .map(|causal| (format!("{name}, causal {causal}"), LinearOptions::new(map).causal(causal)))
    });
    both.collect()
}

/// What mutants are looked for with.
pub(super) fn bound(gpu: &Gpu) -> Result<(), String> {
    let global = maps()[1].1;
    for options in [
        causal(FeatureMap::favor(22)).key_mask(true).denominator_eps(0.25),
        causal(FeatureMap::Elu).decay(vec![0.9, 0.99]),
        LinearOptions::new(global),
        causal(FeatureMap::relu(20)),
        causal(FeatureMap::Softmax),
        LinearOptions::new(FeatureMap::Softmax).key_mask(true),
    ] {
        check_on(gpu, &case::<f32>(shape(), options, Kind::Normal), 3)?;
    }
    // More keys than queries, and fewer.
    for (q_len, kv_len) in [(20, 90), (90, 20)] {
        let shape = AttentionShape::new(1, 2, q_len, 8).kv_len(kv_len).value_dim(7);
        check_on(gpu, &case::<f32>(shape, causal(FeatureMap::Elu), Kind::Normal), 3)?;
    }
    Ok(())
}

#[test]
fn every_map_is_within_its_bound() {
    let staged = gpu_with(Options::default().tile_kind(TileKind::Staged));
    for (name, options) in each() {
        let case = case::<f32>(shape(), options, Kind::Normal);
        println!("{name}: {}", check(&case));
        check_on(&staged, &case, 3).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn masks_decay_and_eps() {
    let decay = vec![0.9, 0.996];
    for map in [FeatureMap::favor(12), FeatureMap::Elu] {
        for options in [
            LinearOptions::new(map).key_mask(true).denominator_eps(0.25),
            causal(map).key_mask(true),
            causal(map).decay(decay.clone()),
            causal(map).decay(decay.clone()).key_mask(true).denominator_eps(1e-3),
            causal(map).denominator_eps(1.0),
        ] {
            println!("{options:?}: {}", check(&case::<f32>(shape(), options.clone(), Kind::Normal)));
        }
    }
}

#[test]
fn inputs_of_every_kind() {
    for kind in [Kind::Peaky, Kind::Offset, Kind::Rising, Kind::Tiny] {
        for map in [FeatureMap::favor(16), FeatureMap::Elu] {
            println!("{kind:?}: {}", check(&case::<f32>(shape(), causal(map), kind)));
        }
    }
}

#[test]
fn sixteen_bits() {
    fn both<E: Element>() {
        for map in [FeatureMap::favor(16), FeatureMap::Elu] {
            for (shape, causal) in [(shape(), true), (AttentionShape::new(1, 2, 67, 7), false)] {
                let options = LinearOptions::new(map).causal(causal).key_mask(!causal);
                println!("{}", check(&case::<E>(shape, options, Kind::Normal)));
            }
        }
    }
    both::<f16>();
    both::<bf16>();
    let odd = AttentionShape::new(1, 2, 67, 7);
    check(&case::<f16>(odd, LinearOptions::new(FeatureMap::Softmax), Kind::Normal));
}

#[test]
fn sizes_and_lengths() {
    for (q_len, kv_len, dim, value_dim) in [
        (1, 1, 1, 1),
        (64, 64, 8, 8),
        (65, 65, 8, 3),
        (128, 127, 4, 8),
        (5, 130, 8, 8),
        (130, 5, 8, 8),
        (200, 66, 7, 9),
        (66, 200, 8, 64),
        (40, 40, 64, 16),
    ] {
        let shape = AttentionShape::new(1, 2, q_len, dim).kv_len(kv_len).value_dim(value_dim);
        for options in
            [causal(FeatureMap::favor(5)), causal(FeatureMap::Elu), LinearOptions::new(FeatureMap::Elu)]
        {
            check(&case::<f32>(shape, options, Kind::Normal));
        }
    }
}

#[test]
fn layouts() {
    for placement in [Placement::Blhd, Placement::Gap(3), Placement::Gap(4)] {
        let attention = placement.apply(AttentionShape::new(2, 2, 66, 8));
        check(&case::<f32>(attention, causal(FeatureMap::favor(8)), Kind::Arange));
    }
}

/// Features that are 1 in one place: means, whose gradients by v are shares of dout. With dout a multiple of the number of keys all sums are integers.
pub(super) fn counts(gpu: &Gpu) -> Result<(), String> {
    for (causal, masked) in [(true, false), (true, true), (false, true)] {
        let options = LinearOptions::new(FeatureMap::Identity).causal(causal).key_mask(masked);
        let mut case = Case::<f32>::new(shape(), options, Kind::Normal, 3);
        let d = case.attention.shape.head_dim;
        let ones = |(n, x): (usize, &mut f32)| *x = if n % d == 0 { 1.0 } else { 0.0 };
        case.q.iter_mut().enumerate().for_each(ones);
        case.k.iter_mut().enumerate().for_each(ones);
        let shape = case.attention.shape;
        let (h, lq, lk, dv) = (shape.heads, shape.q_len, shape.kv_len, shape.value_dim);
        let sees = |batch: usize, i: usize, j: usize| {
            let hidden = case.key_mask.as_ref().is_some_and(|mask| !mask[batch * lk + j]);
            !hidden && (!causal || j + lq <= i + lk)
        };
        let count = |batch, i| (0..lk).filter(|&j| sees(batch, i, j)).count() as f32;
        let bit = |row: usize, c: usize| ((row * 7 + c * 3) % 5 % 2) as f32;
        let dout: Vec<f32> =
            (0..shape.len_out()).map(|n| bit(n / dv, n % dv) * count(n / dv / lq / h, n / dv % lq)).collect();
        let got = run(gpu, &case, &dout)?;
        for (n, got) in got.dv.iter().enumerate() {
            let (c, j, line) = (n % dv, n / dv % lk, n / dv / lk);
            let (batch, kv_head) = (line / shape.kv_heads, line % shape.kv_heads);
            let of_query = |row: usize| {
                let (head, i) = (row / lq % h, row % lq);
                let own = row / lq / h == batch && shape.kv_head(head) == kv_head && sees(batch, i, j);
                if own { bit(row, c) } else { 0.0 }
            };
            let want: f32 = (0..shape.batch * h * lq).map(of_query).sum();
            // Also where it is not a number.
            let near = (got - want).abs() <= 0.1;
            if !near {
                return Err(format!(
                    "dv of key {j}, column {c}: {got} instead of {want}, {:?}",
                    case.options
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn shares_of_means_count_every_query_once() {
    counts(gpu()).unwrap();
}

/// The sum over values of what each got is what was given, where denominators have no eps.
#[test]
fn gradients_by_values_add_up() {
    let case = case::<f32>(shape(), causal(FeatureMap::favor(22)), Kind::Normal);
    let dout = dout(&case, 3);
    let got = run(gpu(), &case, &dout).unwrap();
    let given: f64 = dout.iter().map(|&x| f64::from(x)).sum();
    let sum: f64 = got.dv.iter().map(|&x| f64::from(x)).sum();
    assert!((sum - given).abs() < 1e-3, "{sum} of {given}");
}

/// One of a case's tensors.
type Tensor = fn(&mut Case<f32>) -> &mut Vec<f32>;

/// Central differences of the reference's forward pass, twice, so that errors of the fourth order are left.
#[test]
fn the_reference_is_the_derivative_of_the_forward_pass() {
    let no_eps = |stabiliser| FeatureMap::Favor {
        features: 6,
        eps: 0.0,
        stabiliser,
        projection: Projection::Seeded { seed: 3 },
    };
    for options in [
        causal(no_eps(Stabiliser::Running)),
        LinearOptions::new(no_eps(Stabiliser::Global)).key_mask(true),
        causal(FeatureMap::relu(6)).denominator_eps(0.5),
        causal(FeatureMap::Elu).decay(vec![0.75, 0.875]),
        LinearOptions::new(FeatureMap::Identity),
        causal(FeatureMap::Softmax),
        LinearOptions::new(FeatureMap::Softmax),
        LinearOptions::new(FeatureMap::Softmax).key_mask(true).denominator_eps(0.5),
    ] {
        let shape = AttentionShape::new(1, 4, 5, 3).kv_heads(2).kv_len(7).value_dim(2);
        let mut case = case::<f32>(shape, options, Kind::Normal);
        let coarse = |x: &mut f32| *x = (*x * 256.0).round() / 256.0 + 1.0 / 1024.0;
        case.q.iter_mut().chain(&mut case.k).chain(&mut case.v).for_each(coarse);
        let dout = dout(&case, 4);
        let want = exact(&case, &dout);
        let loss = |case: &Case<f32>| -> f64 {
            let out = reference::linear_attention(shape, &case.options, &case.inputs()).unwrap();
            out.iter().zip(&dout).map(|(o, &d)| o * f64::from(d)).sum()
        };
        let tensors: [(&Bounded, Tensor); 3] =
            [(&want.dq, |case| &mut case.q), (&want.dk, |case| &mut case.k), (&want.dv, |case| &mut case.v)];
        let mut corners = 0;
        for (which, (want, tensor)) in tensors.into_iter().enumerate() {
            for n in 0..want.out.len() {
                let difference = |step: f32| {
                    let moved = |by: f32| {
                        let mut other = case.clone();
                        tensor(&mut other)[n] += by;
                        loss(&other)
                    };
                    (moved(step) - moved(-step)) / f64::from(2.0 * step)
                };
                let [fine, coarse] = [1.0 / 2048.0, 1.0 / 1024.0].map(difference);
                // ReLU has a corner, at which the two differ.
                if matches!(case.options.map, FeatureMap::Relu { .. }) && (fine - coarse).abs() > 1e-4 {
                    corners += 1;
                    continue;
                }
                let slope = (4.0 * fine - coarse) / 3.0;
                let near = (slope - want.out[n]).abs() < 1e-6 * (1.0 + slope.abs());
                assert!(near, "{:?}, {which} {n}: {slope} against {}", case.options, want.out[n]);
            }
        }
        assert!(corners < 5, "{corners}");
    }
}

#[test]
fn what_is_masked_or_later_does_not_matter() {
    let mut case = case::<f32>(shape(), causal(FeatureMap::favor(16)).key_mask(true), Kind::Normal);
    let dout = dout(&case, 3);
    let first = run(gpu(), &case, &dout).unwrap();
    let mask = case.key_mask.clone().expect("asked for");
    let hidden = |n: usize, dim: usize| !mask[n / dim / 150 / 2 * 150 + n / dim % 150];
    case.k.iter_mut().enumerate().filter(|(n, _)| hidden(*n, 12)).for_each(|(_, k)| *k = f32::NAN);
    case.v.iter_mut().enumerate().filter(|(n, _)| hidden(*n, 20)).for_each(|(_, v)| *v = f32::INFINITY);
    assert_eq!(run(gpu(), &case, &dout).unwrap(), first);
    assert!(first.dk.iter().enumerate().filter(|(n, _)| hidden(*n, 12)).all(|(_, x)| *x == 0.0));
    assert!(first.dv.iter().enumerate().filter(|(n, _)| hidden(*n, 20)).all(|(_, x)| *x == 0.0));
}

#[test]
fn repeats_are_equal_and_powers_of_two_pass_through() {
    let case = case::<f32>(shape(), causal(FeatureMap::favor(16)).decay(vec![0.9, 0.99]), Kind::Normal);
    let dout = dout(&case, 3);
    let first = run(gpu(), &case, &dout).unwrap();
    assert_eq!(run(gpu(), &case, &dout).unwrap(), first);
    let larger: Vec<f32> = dout.iter().map(|x| x * 8.0).collect();
    let second = run(gpu(), &case, &larger).unwrap();
    let times = |x: &[f32]| x.iter().map(|x| x * 8.0).collect::<Vec<_>>();
    assert_eq!([second.dq, second.dk, second.dv], [times(&first.dq), times(&first.dk), times(&first.dv)]);
}

/// Each gradient alone is that of all three, and bytes behind it stay.
#[test]
fn each_gradient_alone() {
    let case = case::<f32>(shape(), causal(FeatureMap::favor(16)), Kind::Normal);
    let dout_values = dout(&case, 3);
    let all = run(gpu(), &case, &dout_values).unwrap();
    let device = gpu().device();
    let plan = gpu().kernels().linear_attention(&case.attention, case.options.clone()).unwrap();
    let plan = plan.backward().unwrap();
    assert!(plan.scratch_bytes() > 0 && plan.flops() > 0.0);
    let [q, k, v, dout] = [&case.q, &case.k, &case.v, &dout_values].map(|data| storage(device, data));
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    for (n, want) in [&all.dq, &all.dk, &all.dv].into_iter().enumerate() {
        let gradient = storage(device, &vec![-7.0; want.len() + 4]);
        let mut buffers = LinearGradBuffers::new(whole(&q), whole(&k), whole(&v), whole(&dout));
        *[&mut buffers.dq, &mut buffers.dk, &mut buffers.dv][n] = Some(whole(&gradient));
        let call = plan.bind(buffers).unwrap();
        let mut encoder = device.create_command_encoder(&Default::default());
        call.encode(&mut encoder);
        gpu().queue().submit([encoder.finish()]);
        let got = read(device, gpu().queue(), &gradient);
        assert_eq!((&got[..want.len()], &got[want.len()..]), (&want[..], &[-7.0; 4][..]), "{n}");
    }
}

#[test]
fn bad_calls_are_refused_one_by_one() {
    let (shape, device) = (AttentionShape::new(1, 2, 64, 16), gpu().device());
    let plan = |options: LinearOptions| gpu().kernels().linear_attention(shape, options).unwrap();
    let refused = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
    };
    let state = causal(FeatureMap::Elu).state(LinearState::Left);
    refused(plan(state).backward().unwrap_err(), &["state", "Left"]);
    let good = plan(causal(FeatureMap::Elu));
    let overlap =
        wgpu_attention::Gradients::of(good.attention()).dk_layout(Layout::Strided(Strides::new(0, 0, 16)));
    refused(good.backward_with(overlap).unwrap_err(), &["dk_layout", "overlap"]);
    let backward = good.backward().unwrap();
    let [q, k, v, dout, dq] = [0; 5].map(|_| storage(device, &vec![0.0; shape.len_q()]));
    let small = storage(device, &[0.0; 16]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let bare = || LinearGradBuffers::new(whole(&q), whole(&k), whole(&v), whole(&dout));
    backward.bind(bare().dq(whole(&dq))).unwrap();
    for (buffers, words) in [
        (bare(), ["dq, dk, dv", "at least one"]),
        (bare().q(whole(&small)).dq(whole(&dq)), ["q", "4 bytes"]),
        (bare().dout(whole(&small)).dq(whole(&dq)), ["dout", "bytes"]),
        (bare().dk(whole(&small)), ["dk", "bytes"]),
        (bare().dq(whole(&q)), ["dq", "q"]),
        (bare().dq(whole(&dq)).dv(whole(&dq)), ["dv", "dq"]),
        (bare().dq(whole(&dq)).key_mask(whole(&small)), ["key_mask", "none"]),
        (bare().dq(whole(&dq)).projection(whole(&small)), ["projection", "none"]),
    ] {
        refused(backward.bind(buffers).unwrap_err(), &words);
    }
    let case = Case::<f32>::new(shape, causal(FeatureMap::Elu), Kind::Normal, 1);
    let short = vec![0.0f32; shape.len_out() - 1];
    let run = gpu().linear_backward::<_, _, _, f32>(shape, &case.options, &case.inputs(), &short);
    refused(run.unwrap_err(), &["dout"]);
    let reference =
        reference::linear_gradient(shape, &case.options, &case.inputs(), &short, ElementType::F32);
    refused(reference.unwrap_err(), &["dout"]);
}

#[test]
fn nothing_is_asked_of_an_empty_call() {
    let case = Case::<f32>::new(shape().q_len(0), causal(FeatureMap::Elu), Kind::Normal, 1);
    assert!(run(gpu(), &case, &[]).unwrap().dq.is_empty());
    // Queries without keys: 0.
    let case =
        Case::<f32>::new(AttentionShape::new(1, 1, 3, 4).kv_len(0), causal(FeatureMap::Elu), Kind::Normal, 1);
    let got = run(gpu(), &case, &[1.0; 12]).unwrap();
    assert_eq!((got.dq, got.dk.len(), got.dv.len()), (vec![0.0; 12], 0, 0));
}
