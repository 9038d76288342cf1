//! Gradients: elements within their bounds, the reference itself, sums that are integers, bad input.

use super::{Call, each, options, shape};
use crate::gradients::rows;
use half::{bf16, f16};
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::{self, BoundedLinformerGradients, Kind};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    AttentionShape, Counter, Element, ElementType, Error, Gpu, Gradients, Layout, LinformerGradBuffers,
    LinformerGradients, LinformerOptions, Options, Score, Stage, Strides,
};
use wgpu_attention_testing::{Placement, gpu, gpu_with, read, storage};

/// The gradient of out, lying as out does.
fn dout<E: Element>(call: &Call<E>, seed: u64) -> Vec<E> {
    let draw = Counter::new(seed, 56);
    (0..call.attention.len_out() as u64).map(|n| E::from_f64(draw.normal(n))).collect()
}

fn run<E: Element>(gpu: &Gpu, call: &Call<E>, dout: &[E]) -> Result<LinformerGradients<E>, String> {
    let run = gpu.linformer_backward(&call.attention, &call.options, &call.inputs(), dout);
    run.map_err(|e| format!("{:?}: {e}", call.options))
}

fn exact<E: Element>(call: &Call<E>, dout: &[E]) -> BoundedLinformerGradients {
    reference::linformer_gradient(&call.attention, &call.options, &call.inputs(), dout, E::TYPE)
        .expect("valid")
}

/// A gradient's name, what it must be, what the device gave.
type Found<'a> = (&'a str, Option<&'a Bounded>, Option<Vec<f64>>);

/// Every element within its bound, and something promised of each: the worst error / bound of each gradient.
fn check_on<E: Element>(gpu: &Gpu, call: &Call<E>, seed: u64) -> Result<String, String> {
    let dout = dout(call, seed);
    let (got, want) = (run(gpu, call, &dout)?, exact(call, &dout));
    let (attention, shape) = (&call.attention, &call.attention.shape);
    let (queries, keys) =
        ([shape.batch, shape.heads, shape.q_len], [shape.batch, shape.kv_heads, shape.kv_len]);
    let wide = |data: Vec<E>| data.into_iter().map(Into::into).collect::<Vec<f64>>();
    let of_dv = |dv: &Vec<E>| wide(rows(dv, attention.v_strides(), keys, shape.value_dim));
    let exact_f32 = |data: &Vec<f32>| data.iter().map(|&x| x.into()).collect::<Vec<f64>>();
    let found: [Found<'_>; 5] = [
        ("dq", Some(&want.dq), Some(wide(rows(&got.dq, attention.q_strides(), queries, shape.head_dim)))),
        ("dk", Some(&want.dk), Some(wide(rows(&got.dk, attention.k_strides(), keys, shape.head_dim)))),
        ("dv", want.dv.as_ref(), got.dv.as_ref().map(of_dv)),
        ("de", Some(&want.de), Some(exact_f32(&got.de))),
        ("df", want.df.as_ref(), got.df.as_ref().map(exact_f32)),
    ];
    let mut ratios = vec![];
    for (name, want, got) in found {
        let (Some(want), Some(got)) = (want, &got) else {
            assert!(want.is_none() && got.is_none(), "{name}");
            continue;
        };
        let comparison = want.compare(got.iter().copied(), 0.0);
        if !comparison.pass || comparison.unspecified > 0 {
            return Err(format!("{name}: {comparison}\n{:?} {:?}", call.attention, call.options));
        }
        ratios.push(format!("{name} {:.4}", comparison.worst.map_or(0.0, |worst| worst.ratio)));
    }
    Ok(ratios.join(" "))
}

fn check<E: Element>(call: &Call<E>) -> String {
    check_on(gpu(), call, 3).unwrap_or_else(|e| panic!("{e}"))
}

/// What mutants are looked for with.
pub(crate) fn bound(gpu: &Gpu) -> Result<(), String> {
    each().into_iter().try_for_each(|(name, shape, options)| {
        let call = Call::<f32>::new(shape, options, Kind::Normal, 5);
        check_on(gpu, &call, 3).map(drop).map_err(|e| format!("{name}: {e}"))
    })
}

#[test]
fn every_option_is_within_its_bound() {
    let staged = gpu_with(Options::default().tile_kind(TileKind::Staged));
    for (name, shape, options) in each() {
        for kind in [Kind::Normal, Kind::Peaky, Kind::Offset, Kind::Rising, Kind::Tiny] {
            let call = Call::<f32>::new(shape, options, kind, 3);
            println!("{name}, {kind:?}: {}", check(&call));
            check_on(&staged, &call, 3).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn sixteen_bits() {
    fn each_option<E: Element>() {
        for (name, shape, options) in each() {
            println!("{name}: {}", check(&Call::<E>::new(shape, options, Kind::Normal, 2)));
        }
        // Rows that end within a word.
        let odd = AttentionShape::new(1, 2, 9, 7).kv_len(21);
        for options in [options().values(false), options().key_mask(true)] {
            check(&Call::<E>::new(odd, options, Kind::Normal, 2));
        }
    }
    each_option::<f16>();
    each_option::<bf16>();
}

#[test]
fn sizes_lengths_and_scales() {
    for (q_len, kv_len, projected, dim) in
        [(1, 1, 1, 1), (1, 130, 64, 8), (130, 1, 3, 7), (64, 64, 64, 64), (33, 257, 100, 16)]
    {
        let shape = AttentionShape::new(1, 2, q_len, dim).kv_len(kv_len);
        for options in [LinformerOptions::new(kv_len, projected), LinformerOptions::new(512, projected)] {
            check(&Call::<f32>::new(shape, options, Kind::Normal, 7));
        }
    }
    check(&Call::<f32>::new(shape().score(Score::new().scale(0.7)), options(), Kind::Normal, 7));
}

/// One stride leads through batch and heads, or none does.
#[test]
fn layouts() {
    for placement in [Placement::Blhd, Placement::Gap(3), Placement::Gap(4), Placement::BlhdGap(1)] {
        for options in [options(), options().per_head(true).key_mask(true)] {
            check(&Call::<f32>::new(placement.apply(shape()), options, Kind::Arange, 6));
            check(&Call::<f32>::new(placement.apply(shape().kv_heads(1)), options, Kind::Arange, 6));
        }
    }
}

/// Sums that are integers: queries weigh all 16 projected rows alike, and dout is made of multiples of 16.
///
/// With keys of 0, dk is E dK'; with an E of equal columns, dE is a sum of K dK'^T. dv and dF have only p in them.
pub(crate) fn counts(gpu: &Gpu) -> Result<(), String> {
    for (keys, per_head, masked) in [(true, false, true), (false, false, false), (false, true, true)] {
        let options = LinformerOptions::new(90, 16).per_head(per_head).key_mask(masked);
        let mut call = Call::<f32>::new(shape().score(Score::new().scale(1.0)), options, Kind::Normal, 4);
        let bit = |x: &mut f32| *x = f32::from(u8::from(*x > 0.0));
        call.q.iter_mut().chain(call.v.iter_mut().flatten()).for_each(bit);
        // One row of F is one key's.
        let f = call.f.as_mut().expect("asked for");
        f.iter_mut()
            .enumerate()
            .for_each(|(n, f)| *f = f32::from(u8::from(n / 16 % 90 == n % 16 * 3 + n / 16 / 90)));
        match keys {
            true => call.k.fill(0.0),
            false => call.k.iter_mut().for_each(bit),
        }
        let same = |(n, e): (usize, &mut f32)| {
            let column = if keys { n % 16 } else { 0 };
            *e = f32::from(u8::from(Counter::new(n as u64 / 16, 9).below(column as u64, 2) == 0));
        };
        call.e.iter_mut().enumerate().for_each(same);
        let mut dout = dout(&call, 3);
        dout.iter_mut().for_each(|x| *x = 256.0 * f32::from(u8::from(*x > 1.0)));
        let (got, want) = (run(gpu, &call, &dout)?, exact(&call, &dout));
        let (dv, df) = (got.dv.expect("asked for"), got.df.expect("asked for"));
        let (want_dv, want_df) = (want.dv.expect("asked for"), want.df.expect("asked for"));
        let pairs = [
            ("dk", &got.dk, &want.dk),
            ("dv", &dv, &want_dv),
            ("de", &got.de, &want.de),
            ("df", &df, &want_df),
        ];
        let counted = if keys { "dk" } else { "de" };
        for (name, got, want) in pairs {
            if name == counted || name.contains(['v', 'f']) {
                assert!(want.out.iter().any(|&x| x != 0.0), "{name}: nothing to count");
            }
            for (n, (got, &want)) in got.iter().zip(&want.out).enumerate() {
                assert!((want - want.round()).abs() < 1e-6 && want.abs() < 8e6, "{name} {n}: {want}");
                // Also where it is not a number.
                let near = (f64::from(*got) - want).abs() <= 0.25;
                if !near {
                    return Err(format!("{name} {n}: {got} instead of {want}, {options:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn projected_gradients_are_counted_once() {
    counts(gpu()).unwrap();
}

type Tensor = fn(&mut Call<f32>) -> &mut Vec<f32>;

/// The reference against differences of its own forward pass.
#[test]
fn the_reference_is_a_derivative() {
    let shape = AttentionShape::new(2, 4, 3, 3).kv_heads(2).kv_len(6);
    for options in [
        LinformerOptions::new(7, 4),
        LinformerOptions::new(6, 3).per_head(true).key_mask(true),
        LinformerOptions::new(6, 3).value_projection(false),
        LinformerOptions::new(6, 3).values(false),
        LinformerOptions::new(7, 3).values(false).value_projection(false).key_mask(true),
    ] {
        let mut call = Call::<f32>::new(shape, options, Kind::Normal, 5);
        let coarse = |x: &mut f32| *x = (*x * 256.0).round() / 256.0;
        call.q.iter_mut().chain(&mut call.k).chain(call.v.iter_mut().flatten()).for_each(coarse);
        call.e.iter_mut().chain(call.f.iter_mut().flatten()).for_each(coarse);
        let dout = dout(&call, 4);
        let want = exact(&call, &dout);
        let loss = |call: &Call<f32>| -> f64 {
            let out = reference::linformer(shape, &call.options, &call.inputs()).unwrap();
            out.iter().zip(&dout).map(|(o, &d)| o * f64::from(d)).sum()
        };
        let tensors: [(&str, Option<&Bounded>, Tensor); 5] = [
            ("dq", Some(&want.dq), |call| &mut call.q),
            ("dk", Some(&want.dk), |call| &mut call.k),
            ("dv", want.dv.as_ref(), |call| call.v.as_mut().expect("asked for")),
            ("de", Some(&want.de), |call| &mut call.e),
            ("df", want.df.as_ref(), |call| call.f.as_mut().expect("asked for")),
        ];
        for (name, want, tensor) in tensors {
            for (n, &want) in want.iter().flat_map(|want| want.out.iter().enumerate()) {
                let difference = |step: f32| {
                    let moved = |by: f32| {
                        let mut other = call.clone();
                        tensor(&mut other)[n] += by;
                        loss(&other)
                    };
                    (moved(step) - moved(-step)) / f64::from(2.0 * step)
                };
                let slope = (4.0 * difference(1.0 / 1024.0) - difference(1.0 / 512.0)) / 3.0;
                let near = (slope - want).abs() < 1e-6 * (1.0 + slope.abs());
                assert!(near, "{options:?}, {name} {n}: {slope} against {want}");
            }
        }
    }
}

/// Values of masked keys, and rows of E and F behind the last key, may be anything; what is of them is 0.
pub(crate) fn strange(gpu: &Gpu) -> Result<(), String> {
    for per_head in [false, true] {
        let mut call =
            Call::<f32>::new(shape(), options().key_mask(true).per_head(per_head), Kind::Normal, 9);
        let dout = dout(&call, 3);
        let first = run(gpu, &call, &dout)?;
        let mask = call.key_mask.clone().expect("asked for");
        let hidden = |n: usize, dim: usize| !mask[n / dim / 70 / 2 * 70 + n / dim % 70];
        let behind = |n: usize| n / 19 % 90 >= 70;
        call.k.iter_mut().enumerate().filter(|(n, _)| hidden(*n, 12)).for_each(|(_, k)| *k = f32::NAN);
        let v = call.v.as_mut().expect("asked for");
        v.iter_mut().enumerate().filter(|(n, _)| hidden(*n, 20)).for_each(|(_, v)| *v = f32::INFINITY);
        let matrices = call.e.iter_mut().enumerate().chain(call.f.iter_mut().flatten().enumerate());
        matrices.filter(|(n, _)| behind(*n)).for_each(|(_, x)| *x = f32::NAN);
        if run(gpu, &call, &dout)? != first {
            return Err(format!("what must not matter does, per head {per_head}"));
        }
        let zero = |data: &[f32], of: &dyn Fn(usize) -> bool| {
            data.iter().enumerate().filter(|(n, _)| of(*n)).all(|(_, x)| *x == 0.0)
        };
        let (dv, df) = (first.dv.expect("asked for"), first.df.expect("asked for"));
        let rows = zero(&first.dk, &|n| hidden(n, 12)) && zero(&dv, &|n| hidden(n, 20));
        if !(rows && zero(&first.de, &behind) && zero(&df, &behind)) {
            return Err(format!("what is of nothing is not 0, per head {per_head}"));
        }
    }
    Ok(())
}

#[test]
fn masked_keys_and_rows_behind_the_last_do_not_matter() {
    strange(gpu()).unwrap();
}

#[test]
fn repeats_are_equal_and_powers_of_two_pass_through() {
    let call = Call::<f32>::new(shape(), options().key_mask(true).value_projection(false), Kind::Normal, 5);
    let dout = dout(&call, 3);
    let first = run(gpu(), &call, &dout).unwrap();
    assert_eq!(run(gpu(), &call, &dout).unwrap(), first);
    let larger: Vec<f32> = dout.iter().map(|x| x * 8.0).collect();
    let second = run(gpu(), &call, &larger).unwrap();
    let times = |x: &[f32]| x.iter().map(|x| x * 8.0).collect::<Vec<_>>();
    assert_eq!([second.dq, second.dk, second.de], [times(&first.dq), times(&first.dk), times(&first.de)]);
    assert_eq!(second.dv, first.dv.as_deref().map(times));
}

/// What a query's heads, batch items and projections of their own get adds up to what a shared one gets.
#[test]
fn shared_projections_get_the_sum_of_those_per_head() {
    let alone = Call::<f32>::new(shape(), options().per_head(true), Kind::Normal, 5);
    let matrix = 90 * 19;
    let twice = |e: &[f32]| [&e[..matrix], &e[..matrix]].concat();
    let mut own = alone.clone();
    own.e = twice(&alone.e);
    own.f = alone.f.as_deref().map(twice);
    let mut shared = own.clone();
    shared.options = options();
    shared.e.truncate(matrix);
    shared.f.iter_mut().for_each(|f| f.truncate(matrix));
    let dout = dout(&own, 3);
    let (of_heads, of_all) = (run(gpu(), &own, &dout).unwrap(), run(gpu(), &shared, &dout).unwrap());
    assert_eq!((&of_heads.dq, &of_heads.dk, &of_heads.dv), (&of_all.dq, &of_all.dk, &of_all.dv));
    for (heads, all) in [(&of_heads.de, &of_all.de), (&of_heads.df.unwrap(), &of_all.df.unwrap())] {
        let largest = all.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        for (n, all) in all.iter().enumerate() {
            let sum = heads[n] + heads[matrix + n];
            assert!((sum - all).abs() <= 1e-5 * largest, "{n}: {sum} against {all}");
        }
    }
}

/// Each gradient alone is that of all, and bytes behind it stay.
#[test]
fn each_gradient_alone() {
    for options in [options(), options().key_mask(true)] {
        let call = Call::<f32>::new(shape(), options, Kind::Normal, 5);
        let dout_values = dout(&call, 3);
        let all = run(gpu(), &call, &dout_values).unwrap();
        let device = gpu().device();
        let plan = gpu().kernels().linformer(&call.attention, call.options).unwrap().backward().unwrap();
        assert!(plan.scratch_bytes() > 0 && plan.flops() > 0.0);
        let (v, f) = (call.v.as_ref().expect("asked for"), call.f.as_ref().expect("asked for"));
        let [q, k, v, e, f, dout] =
            [&call.q, &call.k, v, &call.e, f, &dout_values].map(|data| storage(device, data));
        let mask = call.key_mask.as_ref().map(|mask| {
            let words: Vec<f32> = mask.iter().map(|&counts| f32::from_bits(counts.into())).collect();
            storage(device, &words)
        });
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let wanted = [&all.dq, &all.dk, all.dv.as_ref().unwrap(), &all.de, all.df.as_ref().unwrap()];
        for (n, want) in wanted.into_iter().enumerate() {
            let gradient = storage(device, &vec![-7.0; want.len() + 4]);
            let mut buffers = LinformerGradBuffers::new(whole(&q), whole(&k), whole(&e), whole(&dout))
                .v(whole(&v))
                .f(whole(&f))
                .key_mask(mask.as_ref().map(whole));
            *[&mut buffers.dq, &mut buffers.dk, &mut buffers.dv, &mut buffers.de, &mut buffers.df][n] =
                Some(whole(&gradient));
            let bound = plan.bind(buffers).unwrap();
            let mut encoder = device.create_command_encoder(&Default::default());
            // Stages in turn are the whole.
            for stage in Stage::ALL {
                bound.dispatch_stage(&mut encoder.begin_compute_pass(&Default::default()), stage);
            }
            gpu().queue().submit([encoder.finish()]);
            let got = read(device, gpu().queue(), &gradient);
            assert_eq!((&got[..want.len()], &got[want.len()..]), (&want[..], &[-7.0; 4][..]), "{n}");
        }
    }
}

#[test]
fn bad_calls_are_refused_one_by_one() {
    let (shape, device) = (AttentionShape::new(1, 2, 64, 16), gpu().device());
    let refused = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}: {words:?}");
    };
    let plan = |options| gpu().kernels().linformer(shape, options).unwrap();
    let options = LinformerOptions::new(64, 8);
    let good = plan(options);
    let overlap = Gradients::of(good.attention()).dk_layout(Layout::Strided(Strides::new(0, 0, 16)));
    refused(good.backward_with(overlap).unwrap_err(), &["dk_layout", "overlap"]);
    let (backward, alone) = (good.backward().unwrap(), plan(options.values(false).value_projection(false)));
    let alone = alone.backward().unwrap();
    let [q, k, v, dout, dq] = [0; 5].map(|_| storage(device, &vec![0.0; shape.len_q()]));
    let [e, f, de] = [0; 3].map(|_| storage(device, &[0.0; 512]));
    let small = storage(device, &[0.0; 16]);
    let whole = wgpu::Buffer::as_entire_buffer_binding;
    let plain = || LinformerGradBuffers::new(whole(&q), whole(&k), whole(&e), whole(&dout));
    let bare = || plain().v(whole(&v)).f(whole(&f));
    backward.bind(bare().dq(whole(&dq)).de(whole(&de))).unwrap();
    for (buffers, words) in [
        (bare(), ["dq, dk, dv, de, df", "at least one"]),
        (bare().q(whole(&small)).dq(whole(&dq)), ["q", "bytes"]),
        (bare().dout(whole(&small)).dq(whole(&dq)), ["dout", "bytes"]),
        (bare().dk(whole(&small)), ["dk", "bytes"]),
        (bare().de(whole(&small)), ["de", "bytes"]),
        (bare().df(whole(&small)), ["df", "bytes"]),
        (bare().dq(whole(&q)), ["dq", "q"]),
        (bare().de(whole(&f)), ["de", "f"]),
        (bare().dk(whole(&dq)).dv(whole(&dq)), ["dv", "dk"]),
        (plain().f(whole(&f)).dq(whole(&dq)), ["v", "none"]),
        (plain().v(whole(&v)).dq(whole(&dq)), ["f", "none"]),
        (bare().dq(whole(&dq)).key_mask(whole(&small)), ["key_mask", "none"]),
    ] {
        refused(backward.bind(buffers).unwrap_err(), &words);
    }
    refused(alone.bind(plain().dv(whole(&dq))).unwrap_err(), &["dv", "none"]);
    refused(alone.bind(plain().df(whole(&de))).unwrap_err(), &["df", "none"]);
    let call = Call::<f32>::new(shape, options, Kind::Normal, 1);
    let short = vec![0.0f32; shape.len_out() - 1];
    let run = gpu().linformer_backward::<_, _, _, f32>(shape, &options, &call.inputs(), &short);
    refused(run.unwrap_err(), &["dout"]);
    let reference = reference::linformer_gradient(shape, &options, &call.inputs(), &short, ElementType::F32);
    refused(reference.unwrap_err(), &["dout"]);
}

#[test]
fn nothing_is_asked_of_an_empty_call() {
    let call = Call::<f32>::new(shape().q_len(0), options(), Kind::Normal, 1);
    let got = run(gpu(), &call, &[]).unwrap();
    assert!(got.dq.is_empty() && got.de == vec![0.0; 90 * 19] && got.dk.iter().all(|x| *x == 0.0));
}
