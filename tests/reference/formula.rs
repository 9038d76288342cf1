//! The reference against results worked out by hand, layout by layout and term by term.

use wgpu_attention::reference::{self, Kind, Output, Tensors};
use wgpu_attention::{
    Alibi, Attention, AttentionShape, BiasStrides, Causal, Element, ElementType, Full, Inputs, Layout,
    Layouts, PairPredicate, Relative, Score, Segments, Sinks, Slopes, Storage, Strides, Temperature,
};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-14 * b.abs().max(1.0)
}

/// One query, two keys with d = 1, q = 1: scores k_0 and k_1, values 3 and 5.
fn two_keys(score: Score, k: [f32; 2], tensor: Option<(&str, &[f32])>) -> (f64, f64) {
    let inputs = Inputs::new(&[1.0f32], &k, &[3.0, 5.0]);
    let inputs = match tensor {
        Some((name, values)) => inputs.tensor(name, values),
        None => inputs,
    };
    let exact = reference::attention_with(one_query().score(score), &inputs, &Full).unwrap();
    (exact.out[0], exact.lse[0])
}

/// out and lse for scores a, b and values 3, 5.
fn by_hand(a: f64, b: f64) -> (f64, f64) {
    let weight = 1.0 / (1.0 + (b - a).exp());
    (3.0 * weight + 5.0 * (1.0 - weight), (a.exp() + b.exp()).ln())
}

#[track_caller]
fn agrees(got: (f64, f64), scores: (f64, f64)) {
    let want = by_hand(scores.0, scores.1);
    assert!(close(got.0, want.0) && close(got.1, want.1), "{got:?} for {want:?}");
}

fn one_query() -> AttentionShape {
    AttentionShape::new(1, 1, 2, 1).q_len(1)
}

#[test]
fn two_keys_scale_and_softcap() {
    agrees(two_keys(Score::new(), [0.5, 2.0], None), (0.5, 2.0));
    agrees(two_keys(Score::new().scale(-0.25), [0.5, 2.0], None), (-0.125, -0.5));
    let capped = |s: f64| 3.0 * (s / 3.0).tanh();
    agrees(two_keys(Score::new().softcap(3.0), [0.5, 20.0], None), (capped(0.5), capped(20.0)));
}

#[test]
fn a_temperature_divides_before_the_cap() {
    let tempered = Score::new().with(Temperature);
    let halved = Some(("temperature", &[2.0f32][..]));
    agrees(two_keys(tempered.clone(), [0.5, 20.0], halved), (0.25, 10.0));
    let capped = |s: f64| 3.0 * (s / 3.0).tanh();
    agrees(two_keys(tempered.softcap(3.0), [0.5, 20.0], halved), (capped(0.25), capped(10.0)));
}

#[test]
fn each_head_has_its_temperature() {
    let attention =
        AttentionShape::new(1, 2, 2, 1).kv_heads(1).q_len(1).score(Score::new().with(Temperature));
    let inputs = Inputs::new(&[1.0f32, 1.0], &[0.5f32, 2.0], &[3.0, 5.0]).tensor("temperature", &[1.0, 4.0]);
    let exact = reference::attention_with(attention, &inputs, &Full).unwrap();
    agrees((exact.out[0], exact.lse[0]), (0.5, 2.0));
    agrees((exact.out[1], exact.lse[1]), (0.125, 0.5));
}

/// Two keys with scores of 0.5 and 2: the sink of each head takes its share of the sum, and has no value.
#[test]
fn a_sink_takes_part_in_the_sum_alone() {
    let attention = AttentionShape::new(1, 4, 2, 1).kv_heads(1).q_len(1).score(Score::new().with(Sinks));
    let sinks = [1.0, -3.0, f32::NEG_INFINITY, 60.0];
    let inputs = Inputs::new(&[1.0f32; 4], &[0.5f32, 2.0], &[3.0, 5.0]).tensor("sinks", &sinks);
    let exact = reference::attention_with(&attention, &inputs, &Full).unwrap();
    for (head, sink) in sinks.into_iter().enumerate() {
        let [a, b] = [0.5f64, 2.0].map(f64::exp);
        let sum = a + b + f64::from(sink).exp();
        let near = |got: f64, want: f64| assert!((got - want).abs() <= 1e-14 * want.abs(), "{got}, {want}");
        near(exact.out[head], (3.0 * a + 5.0 * b) / sum);
        near(exact.lse[head], sum.ln());
    }
    // Without keys, a row is 0, and its lse the sink.
    let none = reference::attention_with(&attention, &inputs, &PairPredicate::new(|_, _| false)).unwrap();
    assert_eq!(none.out, [0.0; 4]);
    assert_eq!(none.lse, [1.0, -3.0, f64::from(f32::MIN), 60.0]);
    // The bound of such a row is that of its sink.
    let at = reference::Position { batch: 0, head: 3, i: 0 };
    let row = reference::row(&attention, &inputs, &PairPredicate::new(|_, _| false), at, None).unwrap();
    assert!(row.bound == [0.0] && row.lse_bound > 0.0 && row.lse_bound < 1e-4, "{row:?}");
}

/// 2 queries, 3 keys, d = 2, 2 heads on one key head: by loops of their own, over the published formula.
#[test]
fn relative_rows_by_hand() {
    let shape = AttentionShape::new(1, 2, 3, 2).kv_heads(1).q_len(2);
    let q = [1.0f32, -0.5, 0.25, 2.0, -1.0, 0.75, 0.5, 0.125];
    let k = [0.5f32, 1.0, -1.0, 0.25, 2.0, -0.5];
    let v = [3.0f32, 5.0, -1.0, 2.0, 7.0, 0.5];
    let r: Vec<f32> = (0..2 * 4 * 2).map(|n| (n * n % 7) as f32 / 4.0 - 0.5).collect();
    let uw = [0.5f32, -1.0, 0.25, 1.5, -0.75, 0.5, 1.0, -0.25];
    let score = Score::new().scale(0.5).with(Relative::new(2, 4).u(true).w(true));
    let inputs = Inputs::new(&q, &k, &v).tensor("relative_rows", &r).tensor("relative_biases", &uw);
    let exact = reference::attention_with(shape.score(score), &inputs, &Full).unwrap();
    for (h, i) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let score = |j: usize| {
            let row = 2 + j - (i + 1); // D = i + 1 - j; row 0 is D = 2
            let of = |c: usize| {
                let q = f64::from(q[(h * 2 + i) * 2 + c]);
                let (u, w) = (f64::from(uw[h * 2 + c]), f64::from(uw[4 + h * 2 + c]));
                (q + u) * f64::from(k[j * 2 + c]) + (q + w) * f64::from(r[(h * 4 + row) * 2 + c])
            };
            0.5 * (of(0) + of(1))
        };
        let sum: f64 = (0..3).map(|j| score(j).exp()).sum();
        let out: f64 = (0..3).map(|j| score(j).exp() / sum * f64::from(v[2 * j])).sum();
        assert!(close(exact.out[(h * 2 + i) * 2], out) && close(exact.lse[h * 2 + i], sum.ln()), "{h} {i}");
    }
}

/// 2 items, 2 heads on one key head, 2 queries behind a key of memory, d = 2: by loops of their own, over the published formula.
#[test]
fn segments_by_hand() {
    let shape = AttentionShape::new(2, 2, 2, 2).kv_heads(1).kv_len(3);
    let drawn =
        |len: usize, by: usize| -> Vec<f32> { (0..len).map(|n| (n * by % 11) as f32 / 4.0 - 1.25).collect() };
    let (q, k, v) = (drawn(16, 7), drawn(12, 5), drawn(12, 3));
    let (s, e) = (drawn(4, 9), drawn(8, 4));
    let (q_ids, k_ids) = ([0, 1, 2, 0], [0, 0, 1, 0, 2, 2]);
    let segments = Segments::tensor(&s, &e, &q_ids, &k_ids);
    let inputs = Inputs::new(&q, &k, &v).tensor("segments", &segments);
    let score = Score::new().scale(0.5).with(Segments);
    let exact = reference::attention_with(shape.score(score), &inputs, &Full).unwrap();
    for (b, h, i) in (0..8).map(|n| (n / 4, n / 2 % 2, n % 2)) {
        let row = (b * 2 + h) * 2 + i;
        let score = |j: usize| {
            let differs = usize::from(q_ids[b * 2 + i] != k_ids[b * 3 + j]);
            let of = |c: usize| {
                let q = f64::from(q[row * 2 + c]);
                let e = f64::from(e[(differs * 2 + h) * 2 + c]);
                q * f64::from(k[(b * 3 + j) * 2 + c]) + (q + f64::from(s[h * 2 + c])) * e
            };
            0.5 * (of(0) + of(1))
        };
        let sum: f64 = (0..3).map(|j| score(j).exp()).sum();
        let out: f64 = (0..3).map(|j| score(j).exp() / sum * f64::from(v[(b * 3 + j) * 2])).sum();
        assert!(close(exact.out[row * 2], out) && close(exact.lse[row], sum.ln()), "{b} {h} {i}");
    }
}

#[test]
fn relative_rows_end_or_are_clipped() {
    let rows = |relative: Relative| {
        two_keys(Score::new().with(relative), [0.5, 2.0], Some(("relative_rows", &[0.25])))
    };
    // The query stands at the second key: D = 1 and 0.
    agrees(rows(Relative::new(0, 1).clip(true)), (0.75, 2.25));
    assert!(rows(Relative::new(0, 1)).0.is_nan(), "D = 1 has no row");
}

#[test]
fn bias_comes_after_softcap_and_minus_infinity_removes() {
    let score = Score::new().softcap(3.0).bias(BiasStrides::broadcast([1, 1, 1, 2]));
    let biased = |bias: &[f32]| two_keys(score.clone(), [0.5, 20.0], Some(("bias", bias)));
    let capped = |s: f64| 3.0 * (s / 3.0).tanh();
    agrees(biased(&[0.25, -8.0]), (capped(0.5) + 0.25, capped(20.0) - 8.0));

    let (out, lse) = biased(&[0.25, f32::NEG_INFINITY]);
    assert!(out == 3.0 && close(lse, capped(0.5) + 0.25));

    let empty = biased(&[f32::NEG_INFINITY; 2]);
    assert_eq!(empty, (0.0, f64::from(f32::MIN)));
}

#[test]
fn the_default_scale_is_one_over_the_root_of_d() {
    let shape = AttentionShape::new(1, 1, 2, 4).q_len(1).value_dim(1);
    let inputs = Inputs::new(&[1.0f32; 4], &[1.0f32, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0], &[3.0, 5.0]);
    let exact = reference::attention_with(shape, &inputs, &Full).unwrap();
    agrees((exact.out[0], exact.lse[0]), (1.5, 0.0));
}

#[test]
fn alibi_slopes_fall_by_head_and_count_from_the_first_key() {
    // Four heads: slopes 1/4, 1/16, 1/64, 1/256. Query 1 sees keys at distances -1, 0, 1.
    let attention = AttentionShape::new(1, 4, 3, 1).score(Score::new().alibi());
    let v: Vec<f32> = [0.0, 0.0, 1.0].repeat(4);
    let exact = reference::attention(&attention, &[0.0f32; 12], &[0.0; 12], &v, &Full).unwrap();
    for (head, slope) in [0.25f64, 0.0625, 0.015625, 0.00390625].into_iter().enumerate() {
        let total = (-slope).exp() + 1.0 + slope.exp();
        assert!(close(exact.out[3 * head + 1], slope.exp() / total));
        assert!(close(exact.lse[3 * head + 1], total.ln()));
    }
}

/// Two queries over four keys: the second of them stands at key 3, and sees distances 3, 2, 1, 0.
#[test]
fn alibi_counts_from_the_aligned_ends() {
    let shape = AttentionShape::new(1, 1, 4, 1).q_len(2);
    let lse = |term: Alibi, pattern: &dyn wgpu_attention::Pattern| {
        let inputs = Inputs::new(&[0.0f32; 2], &[0.0f32; 4], &[0.0; 4]).tensor("slopes", &[0.5]);
        reference::attention_with(shape.score(Score::new().with(term)), &inputs, pattern).unwrap().lse
    };
    let of = |distances: &[f64]| distances.iter().map(|d| (-0.5 * d).exp()).sum::<f64>().ln();
    let given = Alibi::new(Slopes::Given);
    let causal = lse(given.clone(), &Causal);
    assert!(close(causal[0], of(&[2.0, 1.0, 0.0])) && close(causal[1], of(&[3.0, 2.0, 1.0, 0.0])));
    // The key after the first of them: as far off, or as far ahead.
    assert!(close(lse(given.clone(), &Full)[0], of(&[2.0, 1.0, 0.0, -1.0])));
    assert!(close(lse(given.symmetric(true), &Full)[0], of(&[2.0, 1.0, 0.0, 1.0])));
}

/// A bias by distance: t(D), from the last key seen from the first query to the first key seen from the last.
#[test]
fn a_toeplitz_bias_goes_by_the_distance() {
    let (q_len, kv_len) = (2, 3);
    let attention = AttentionShape::new(1, 2, kv_len, 1)
        .q_len(q_len)
        .score(Score::new().bias(BiasStrides::toeplitz(2, 3)));
    // Element n of a head is of distance n - 1.
    let table: Vec<f32> = (0..8).map(|n| (n * n) as f32 / 8.0).collect();
    let inputs = Inputs::new(&[0.0f32; 4], &[0.0f32; 6], &[0.0; 6]).tensor("bias", &table);
    let exact = reference::attention_with(attention, &inputs, &Full).unwrap();
    for (head, i) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let weight = |j: usize| f64::from(table[4 * head + (i + kv_len - q_len + 1 - j)]).exp();
        let want = (0..kv_len).map(weight).sum::<f64>().ln();
        assert!(close(exact.lse[2 * head + i], want), "head {head}, query {i}");
    }
}

#[test]
fn grouped_heads_share_keys_and_values() {
    // Equal scores: out is the mean of the values of key/value head h / 2.
    let shape = AttentionShape::new(2, 4, 2, 1).kv_heads(2);
    let v: Vec<f32> = (0..8).map(|n| n as f32).collect();
    let exact = reference::attention(shape, &[0.0f32; 16], &[1.0; 8], &v, &Full).unwrap();
    let per_head: Vec<f64> = exact.out.chunks(2).map(|rows| rows[0]).collect();
    assert_eq!(per_head, [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5]);
}

#[test]
fn causal_rows_without_keys_are_zero() {
    // Four queries, two keys, bottom-right: the first two queries see nothing.
    let shape = AttentionShape::new(1, 1, 2, 1).q_len(4);
    let exact = reference::attention(shape, &[1.0f32; 4], &[1.0; 2], &[3.0, 5.0], &Causal).unwrap();
    assert_eq!(exact.out, [0.0, 0.0, 3.0, 4.0]);
    assert_eq!(exact.lse[..2], [f64::from(f32::MIN); 2]);
}

#[test]
fn huge_scores_do_not_overflow() {
    agrees_with_offset(1e4);
    agrees_with_offset(-1e4);
}

fn agrees_with_offset(offset: f32) {
    let (out, lse) = two_keys(Score::new(), [offset, offset + 1.0], None);
    let (want_out, want_lse) = by_hand(0.0, 1.0);
    assert!((out - want_out).abs() < 1e-10 && (lse - f64::from(offset) - want_lse).abs() < 1e-10);
}

/// The same tensors in another layout.
fn laid_out<E: Element>(tensors: &Tensors<E>, from: &Attention, to: &Attention) -> [Vec<E>; 3] {
    let copy = |x: &[E], len, sizes: [usize; 4], from: Strides, to: Strides| {
        let mut y = vec![E::from_f64(99.0); len];
        for n in 0..sizes.iter().product() {
            let (rest, c) = (n / sizes[3], n % sizes[3]);
            let (rest, row) = (rest / sizes[2], rest % sizes[2]);
            let (batch, head) = (rest / sizes[1], rest % sizes[1]);
            y[to.at(batch, head, row) + c] = x[from.at(batch, head, row) + c];
        }
        y
    };
    let AttentionShape { batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = from.shape;
    let queries = [batch, heads, q_len, head_dim];
    let keys = |dim| [batch, kv_heads, kv_len, dim];
    [
        copy(&tensors.q, to.len_q(), queries, from.q_strides(), to.q_strides()),
        copy(&tensors.k, to.len_k(), keys(head_dim), from.k_strides(), to.k_strides()),
        copy(&tensors.v, to.len_v(), keys(value_dim), from.v_strides(), to.v_strides()),
    ]
}

#[test]
fn layouts_agree_with_contiguous_copies() {
    let shape = AttentionShape::new(2, 4, 5, 3).kv_heads(2).kv_len(7).value_dim(6);
    let tensors = reference::random::<f32, f32>(shape, Kind::Normal, 1).unwrap();
    let want = reference::attention_with(shape, &tensors.inputs(), &Causal).unwrap();

    let strided = Layouts::default()
        .q(Layout::Strided(Strides::new(100, 20, 4)))
        .k(Layout::Strided(Strides::new(3, 50, 6)))
        .v(Layout::Blhd);
    // From element 9 on; rows, heads and batch items in reverse; batch items alone in reverse.
    let moved = Layouts::default()
        .q(Layout::Strided(Strides::new(60, 15, 3).offset(9)))
        .k(Layout::Strided(Strides::new(-42, -21, -3).offset(81)))
        .v(Layout::Strided(Strides::new(-84, 42, 6).offset(84)));
    for other in [shape.layout(Layout::Blhd), shape.layouts(strided), shape.layouts(moved)] {
        let [q, k, v] = laid_out(&tensors, &shape.into(), &other);
        let got = reference::attention_with(&other, &Inputs::new(&q, &k, &v), &Causal).unwrap();
        assert_eq!(got, want);
    }
    // A stride of 0: all batch items and heads read the same keys.
    let shared = shape.layouts(Layouts::default().k(Layout::Strided(Strides::new(0, 0, 3))));
    let inputs = Inputs::new(&tensors.q, &tensors.k[..21], &tensors.v);
    let got = reference::attention_with(&shared, &inputs, &Causal).unwrap();
    let repeated = tensors.k[..21].repeat(4);
    let inputs = Inputs::new(&tensors.q, &repeated, &tensors.v);
    assert_eq!(got, reference::attention_with(shape, &inputs, &Causal).unwrap());
}

#[test]
fn element_types_are_read_exactly() {
    fn run<E: Element>() -> Output {
        let shape = AttentionShape::new(1, 2, 9, 8);
        let attention = shape.storage(Storage::all(E::TYPE));
        let tensors = reference::random::<E, E>(&attention, Kind::Arange, 0).unwrap();
        let widened = |x: &[E]| x.iter().map(|&x| Into::<f64>::into(x) as f32).collect::<Vec<f32>>();
        let (q, k, v) = (widened(&tensors.q), widened(&tensors.k), widened(&tensors.v));
        let wide = reference::attention(shape, &q, &k, &v, &Full).unwrap();
        assert_eq!(reference::attention_with(&attention, &tensors.inputs(), &Full).unwrap(), wide);
        // q in f32 over keys and values of another type.
        let mixed = shape.storage(Storage::default().kv(E::TYPE));
        assert_eq!(reference::attention(mixed, &q, &tensors.k, &tensors.v, &Full).unwrap(), wide);
        wide
    }
    assert_ne!(run::<half::f16>(), run::<half::bf16>());
}

#[test]
fn empty_calls_give_nothing() {
    let shape = AttentionShape::new(0, 2, 4, 8);
    assert_eq!(
        reference::attention::<f32, f32>(&shape, &[], &[], &[], &Full).unwrap(),
        Output { out: vec![], lse: vec![] }
    );
    let shape = AttentionShape::new(1, 1, 4, 1).q_len(0);
    assert!(
        reference::attention::<f32, f32>(shape, &[], &[0.0; 4], &[0.0; 4], &Full).unwrap().out.is_empty()
    );
}

#[test]
fn nan_reaches_the_rows_that_depend_on_it_whole_and_no_others() {
    let shape = AttentionShape::new(1, 1, 4, 1).value_dim(2);
    let ones = [1.0f32; 4];
    for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let v = [1.0, 1.0, 2.0, 2.0, strange, 3.0, 4.0, 4.0];
        let exact = reference::attention(shape, &ones, &ones, &v, &Causal).unwrap();
        assert_eq!(exact.out[..4], [1.0, 1.0, 1.5, 1.5]);
        assert!(exact.lse[..2].iter().all(|lse| lse.is_finite()), "{strange}");
        let of_the_others = exact.out[4..].iter().chain(&exact.lse[2..]);
        assert!(of_the_others.into_iter().all(|x| x.is_nan()), "{strange}: {exact:?}");
    }
}

#[test]
fn rows_without_keys_are_empty() {
    let shape = AttentionShape::new(1, 2, 3, 2).kv_len(0);
    let exact = reference::attention::<f32, f32>(shape, &[1.0; 12], &[], &[], &Full).unwrap();
    assert_eq!((exact.out, exact.lse), (vec![0.0; 12], vec![f64::from(f32::MIN); 6]));
}

#[test]
fn bad_input_is_named() {
    let shape = AttentionShape::new(1, 1, 4, 2);
    let ok = [0.0f32; 8];
    let error = |attention: &Attention, inputs: Inputs<'_, f32>| {
        reference::attention_with(attention, &inputs, &Full).unwrap_err().to_string()
    };
    let plain = Attention::from(shape);
    let good = Inputs::new(&ok, &ok, &ok);
    assert_eq!(error(&plain, Inputs::new(&ok[..7], &ok, &ok)), "q: need 8 elements, got 7 elements");
    assert_eq!(error(&plain, Inputs::new(&ok, &[0.0; 9], &ok)), "k: need 8 elements, got 9 elements");
    assert_eq!(error(&plain, Inputs::new(&ok, &ok, &[])), "v: need 8 elements, got 0 elements");
    let strided = shape.layouts(Layouts::default().v(Layout::Strided(Strides::new(0, 0, 3))));
    assert_eq!(error(&strided, good.clone()), "v: need at least 11 elements, got 8 elements");
    assert_eq!(
        error(&plain, good.clone().tensor("bias", &ok)),
        "bias: need none, since the score has no such term, got a tensor"
    );
    let biased = shape.score(Score::new().bias(BiasStrides::broadcast([1, 1, 4, 4])));
    assert_eq!(
        error(&biased, good.clone()),
        "bias: need one tensor, since the score has this term, got none"
    );
    assert_eq!(
        error(&biased, good.clone().tensor("bias", &ok)),
        "bias: need at least 16 elements, got 8 elements"
    );
    let twice = good.clone().tensor("bias", &[0.0; 16]).tensor("bias", &[0.0; 16]);
    assert_eq!(error(&biased, twice), "bias: need one tensor, since the score has this term, got 2 of them");
    let half = shape.storage(Storage::default().q(ElementType::F16));
    assert_eq!(error(&half, good.clone()), "q: need f16 elements, as the storage says, got f32");
    let half = shape.storage(Storage::default().kv(ElementType::F16));
    assert_eq!(error(&half, good.clone()), "k and v: need f16 elements, as the storage says, got f32");
    assert!(error(&shape.kv_heads(3).into(), good.clone()).starts_with("kv_heads: "));

    let at = reference::Position { batch: 0, head: 1, i: 0 };
    let error = reference::row(shape, &good, &Full, at, None).unwrap_err().to_string();
    assert_eq!(error, "position.head: need below 1, got 1");
}
