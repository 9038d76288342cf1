//! The gradients of the reference against central differences of its own forward pass, and against rules that they obey.

use rayon::prelude::*;
use wgpu_attention::reference::gradient::{Gradients, attention_gradient};
use wgpu_attention::reference::{self, Counter, Kind, Tensors};
use wgpu_attention::{
    Alibi, And, Attention, AttentionShape, BiasStrides, Buckets, Causal, ElementType, Full, KeyLengths,
    Layout, Pattern, Relative, Score, Segments, Sinks, Slopes, Storage, Strided, Strides, Temperature,
    Window,
};

/// A power of two, so that x + STEP and x - STEP are exact for what [`tensors`] draws.
const STEP: f32 = 1.0 / 65_536.0;

/// Inputs in multiples of 2^-10.
fn tensors(attention: &Attention, seed: u64) -> Tensors<f32> {
    let mut tensors = reference::random::<f32, f32>(attention, Kind::Normal, seed).unwrap();
    let grid = |x: &mut f32| *x = (*x * 1024.0).round() / 1024.0;
    for tensor in [&mut tensors.q, &mut tensors.k, &mut tensors.v] {
        tensor.iter_mut().for_each(grid);
    }
    for (_, tensor) in &mut tensors.terms {
        tensor.iter_mut().for_each(grid);
    }
    tensors
}

fn dout(attention: &Attention, seed: u64) -> Vec<f32> {
    let draw = Counter::new(seed, 40);
    (0..attention.len_out()).map(|n| draw.normal(n as u64) as f32).collect()
}

/// sum(out * dout), all contiguous.
fn loss(attention: &Attention, tensors: &Tensors<f32>, dout: &[f32], pattern: &dyn Pattern) -> f64 {
    let out = reference::attention_with(attention, &tensors.inputs(), pattern).unwrap().out;
    out.iter().zip(dout).map(|(o, d)| o * f64::from(*d)).sum()
}

type Choose<'a> = &'a (dyn Fn(&mut Tensors<f32>) -> &mut Vec<f32> + Sync);

/// Every element of every gradient against (loss(x + h) - loss(x - h)) / 2h.
#[track_caller]
fn check(attention: &Attention, tensors: &Tensors<f32>, pattern: &dyn Pattern) -> Gradients {
    let dout = dout(attention, 5);
    let exact = attention_gradient(attention, &tensors.inputs(), &dout, pattern).unwrap();
    let compare = |name: &str, gradient: &[f64], of: Choose<'_>| {
        assert_eq!(gradient.len(), of(&mut tensors.clone()).len(), "{name}");
        let worst = (0..gradient.len()).into_par_iter().map(|n| {
            let moved = |step: f32| {
                let mut moved = tensors.clone();
                of(&mut moved)[n] += step;
                loss(attention, &moved, &dout, pattern)
            };
            let slope = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
            // An element of minus infinity stays, and so does the loss.
            ((slope - gradient[n]).abs(), n, slope, gradient[n])
        });
        let worst = worst.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        assert!(worst.0 < 1e-8, "{name}, element {}: {} by differences, {}", worst.1, worst.2, worst.3);
        assert!(gradient.iter().any(|x| x.abs() > 1e-3), "{name} is all but 0");
    };
    compare("dq", &exact.dq, &|tensors| &mut tensors.q);
    compare("dk", &exact.dk, &|tensors| &mut tensors.k);
    compare("dv", &exact.dv, &|tensors| &mut tensors.v);
    for (name, gradient) in &exact.terms {
        compare(name, gradient, &move |tensors| tensors.term_mut(name).unwrap());
    }
    exact
}

fn grouped() -> AttentionShape {
    AttentionShape::new(2, 4, 9, 3).kv_heads(2).q_len(6).value_dim(2)
}

#[test]
fn grouped_heads_more_keys_than_queries_and_other_value_sizes() {
    for pattern in
        [&Full as &dyn Pattern, &Causal, &Window { before: 2, after: 1 }, &Strided::new(3).unwrap()]
    {
        let attention = Attention::from(grouped());
        check(&attention, &tensors(&attention, 1), pattern);
    }
}

#[test]
fn every_term_alone_and_all_together() {
    let bias = BiasStrides::broadcast([2, 4, 6, 9]);
    let given = Alibi::new(Slopes::Given);
    let scores = [
        Score::new().scale(-0.7),
        Score::new().softcap(1.5),
        Score::new().alibi(),
        Score::new().with(given.clone()),
        Score::new().with(given.clone().symmetric(true)),
        Score::new().with(Temperature),
        Score::new().with(Buckets::new(8, 20).bidirectional(true)),
        Score::new().bias(bias),
        Score::new().with(Sinks),
        Score::new().softcap(2.0).with(Temperature).with(Sinks),
        Score::new().dropout(0.4, 5),
        Score::new().softcap(2.0).with(given.clone()).with(Sinks).dropout(0.4, 6),
        Score::new().with(Segments),
        Score::new().with(Segments).with(Temperature).softcap(2.0),
        Score::new().softcap(2.0).with(Temperature).with(given).bias(bias),
    ];
    for score in scores {
        let attention = grouped().score(score);
        let exact = check(&attention, &tensors(&attention, 2), &Causal);
        let names: Vec<_> = exact.terms.iter().map(|(name, _)| *name).collect();
        let asked: Vec<_> = attention.score.tensors(&attention.shape).iter().map(|t| t.name).collect();
        assert_eq!(names, asked);
    }
}

/// Distances -5 to 8 for 6 queries behind 3 keys of memory: a row each; fewer rows, clipped; rows that lie otherwise.
#[test]
fn relative_rows_and_their_biases() {
    let (all, few) = (Relative::new(8, 14), Relative::new(2, 4).clip(true));
    let apart = Strides { offset: 1, batch: 50, head: 0, row: 3 };
    let scores = [
        Score::new().with(all),
        Score::new().with(all.u(true)),
        Score::new().with(all.w(true)),
        Score::new().with(few.u(true).w(true)),
        Score::new().with(all.strides(apart).u(true).w(true)),
        Score::new().with(all.u(true).w(true)).softcap(2.0).with(Temperature).with(Alibi::new(Slopes::Given)),
    ];
    for score in scores {
        let attention = grouped().score(score.scale(-0.8));
        check(&attention, &tensors(&attention, 9), &Full);
    }
}

#[test]
fn a_bias_that_is_broadcast_gets_the_sum() {
    for sizes in [[1, 1, 6, 9], [2, 1, 1, 9], [1, 4, 1, 1], [1, 1, 6, 1]] {
        let attention = grouped().score(Score::new().bias(BiasStrides::broadcast(sizes)));
        let tensors = tensors(&attention, 3);
        if sizes[3] == 9 {
            check(&attention, &tensors, &Full);
            continue;
        }
        // A bias that all keys of a row share changes nothing.
        let exact = attention_gradient(&attention, &tensors.inputs(), &dout(&attention, 5), &Full).unwrap();
        assert!(exact.term("bias").unwrap().iter().all(|x| x.abs() < 1e-13));
    }
    let attention = grouped().score(Score::new().bias(BiasStrides::toeplitz(6, 9)));
    check(&attention, &tensors(&attention, 3), &Full);
}

#[test]
fn rows_without_keys_and_keys_that_nothing_sees_get_0() {
    // The first three queries of six stand before the first of three keys; batch item 1 has one key.
    let shape = AttentionShape::new(2, 2, 3, 4).q_len(6);
    let attention = shape.score(Score::new().bias(BiasStrides::broadcast([1, 2, 6, 3])));
    let mut tensors = tensors(&attention, 4);
    // Head 1, query 4 loses its keys by the bias.
    tensors.term_mut("bias").unwrap()[18 + 4 * 3..18 + 5 * 3].fill(f32::NEG_INFINITY);
    let pattern = And(Causal, KeyLengths { lengths: vec![3, 1] });
    let exact = check(&attention, &tensors, &pattern);
    let row = |batch: usize, head: usize, i: usize| {
        let start = ((batch * 2 + head) * 6 + i) * 4;
        &exact.dq[start..start + 4]
    };
    for (batch, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert!((0..3).all(|i| row(batch, head, i).iter().all(|&x| x == 0.0)));
        assert_eq!(row(batch, head, 4).iter().all(|&x| x == 0.0), head == 1 || batch == 1);
    }
    // Keys 1 and 2 of batch item 1.
    for head in 0..2 {
        let start = (6 + head * 3) * 4;
        assert!(
            exact.dk[start + 4..start + 12].iter().chain(&exact.dv[start + 4..start + 12]).all(|&x| x == 0.0)
        );
    }
    assert_eq!(exact.term("bias").unwrap()[18 + 4 * 3..18 + 5 * 3], [0.0; 3]);
}

#[test]
fn what_no_pair_reads_may_be_anything() {
    let attention = Attention::from(AttentionShape::new(1, 2, 5, 3).q_len(7));
    let clean = tensors(&attention, 6);
    let mut dout = dout(&attention, 6);
    let exact = attention_gradient(&attention, &clean.inputs(), &dout, &Causal).unwrap();
    // Queries 0 and 1 of head 0 see no key.
    let mut dirty = clean.clone();
    dirty.q[..6].fill(f32::NAN);
    dout[..6].fill(f32::NAN);
    assert_eq!(attention_gradient(&attention, &dirty.inputs(), &dout, &Causal).unwrap(), exact);

    // Values of key 4: the last row alone depends on it, and all keys of that row.
    let mut strange = clean.clone();
    strange.v[4 * 3] = f32::INFINITY;
    let got = attention_gradient(&attention, &strange.inputs(), &dout, &Causal).unwrap();
    assert_eq!(got.dq[..18], exact.dq[..18]);
    assert!(got.dq[18..21].iter().all(|x| x.is_nan()));
    assert_eq!(got.dq[21..], exact.dq[21..]);
    assert!(got.dk[..15].iter().all(|x| !x.is_finite()));
    assert_eq!((&got.dk[15..], &got.dv), (&exact.dk[15..], &exact.dv));
}

#[test]
fn layouts_and_element_types_are_read_as_the_forward_pass_reads_them() {
    let shape = grouped();
    let halves = shape.storage(Storage::all(ElementType::F16).out(ElementType::Bf16)).layout(Layout::Blhd);
    let tensors = reference::random::<half::f16, half::f16>(&halves, Kind::Normal, 7).unwrap();
    let dout: Vec<half::bf16> = dout(&halves, 7).into_iter().map(half::bf16::from_f32).collect();
    let exact = attention_gradient(&halves, &tensors.inputs(), &dout, &Causal).unwrap();

    /// `[B, L, H, D]` as `[B, H, L, D]`.
    fn bhld<T: Copy + Into<f32>>(x: &[T], heads: usize, len: usize, dim: usize) -> Vec<f32> {
        let at = |n: usize| {
            let (batch, head, i, c) =
                (n / (heads * len * dim), n / (len * dim) % heads, n / dim % len, n % dim);
            x[((batch * len + i) * heads + head) * dim + c].into()
        };
        (0..x.len()).map(at).collect()
    }
    let (q, k) = (bhld(&tensors.q, 4, 6, 3), bhld(&tensors.k, 2, 9, 3));
    let (v, dout_f32) = (bhld(&tensors.v, 2, 9, 2), bhld(&dout, 4, 6, 2));
    let inputs = wgpu_attention::Inputs::new(&q, &k, &v);
    assert_eq!(attention_gradient(shape, &inputs, &dout_f32, &Causal).unwrap(), exact);
}

#[test]
fn a_wrong_dout_is_refused() {
    let shape = grouped();
    let tensors = tensors(&shape.into(), 8);
    let error =
        |dout: &[f32]| attention_gradient(shape, &tensors.inputs(), dout, &Full).unwrap_err().to_string();
    assert_eq!(error(&[0.0; 95]), "dout: need 96 elements, got 95 elements");
    let half = shape.storage(Storage::default().out(ElementType::F16));
    let error = attention_gradient(&half, &tensors.inputs(), &[0.0f32; 96], &Full).unwrap_err().to_string();
    assert_eq!(error, "dout: need f16 elements, as the storage says, got f32");
}
