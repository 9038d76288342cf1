//! The reference against results worked out by hand, layout by layout and term by term.

use wgpu_attention::reference::{self, Kind, Output, Tensors};
use wgpu_attention::{
    AttentionShape, BiasStrides, Causal, Element, ElementType, Full, Inputs, Layout, Strides,
};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-14 * b.abs().max(1.0)
}

/// One query, two keys with d = 1, q = 1: scores k_0 and k_1, values 3 and 5.
fn two_keys(shape: AttentionShape, k: [f32; 2], bias: Option<&[f32]>) -> (f64, f64) {
    let inputs = Inputs { q: &[1.0f32], k: &k, v: &[3.0, 5.0], bias };
    let exact = reference::attention_with(&shape, &inputs, &Full).unwrap();
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
    agrees(two_keys(one_query(), [0.5, 2.0], None), (0.5, 2.0));
    agrees(two_keys(one_query().scale(-0.25), [0.5, 2.0], None), (-0.125, -0.5));
    let capped = |s: f64| 3.0 * (s / 3.0).tanh();
    agrees(two_keys(one_query().softcap(3.0), [0.5, 20.0], None), (capped(0.5), capped(20.0)));
}

#[test]
fn bias_comes_after_softcap_and_minus_infinity_removes() {
    let shape = one_query().softcap(3.0).bias(BiasStrides::broadcast([1, 1, 1, 2]));
    let capped = |s: f64| 3.0 * (s / 3.0).tanh();
    agrees(two_keys(shape, [0.5, 20.0], Some(&[0.25, -8.0])), (capped(0.5) + 0.25, capped(20.0) - 8.0));

    let (out, lse) = two_keys(shape, [0.5, 20.0], Some(&[0.25, f32::NEG_INFINITY]));
    assert!(out == 3.0 && close(lse, capped(0.5) + 0.25));

    let empty = two_keys(shape, [0.5, 20.0], Some(&[f32::NEG_INFINITY; 2]));
    assert_eq!(empty, (0.0, f64::from(f32::MIN)));
}

#[test]
fn the_default_scale_is_one_over_the_root_of_d() {
    let shape = AttentionShape::new(1, 1, 2, 4).q_len(1).value_dim(1);
    let inputs = Inputs {
        q: &[1.0f32, 1.0, 1.0, 1.0],
        k: &[1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        v: &[3.0, 5.0],
        bias: None,
    };
    let exact = reference::attention_with(&shape, &inputs, &Full).unwrap();
    agrees((exact.out[0], exact.lse[0]), (1.5, 0.0));
}

#[test]
fn alibi_slopes_fall_by_head_and_count_from_the_first_key() {
    // Four heads: slopes 1/4, 1/16, 1/64, 1/256. Query 1 sees keys at distances -1, 0, 1.
    let shape = AttentionShape::new(1, 4, 3, 1).alibi(true);
    let v: Vec<f32> = [0.0, 0.0, 1.0].repeat(4);
    let exact = reference::attention(&shape, &[0.0f32; 12], &[0.0; 12], &v, &Full).unwrap();
    for (head, slope) in [0.25f64, 0.0625, 0.015625, 0.00390625].into_iter().enumerate() {
        let total = (-slope).exp() + 1.0 + slope.exp();
        assert!(close(exact.out[3 * head + 1], slope.exp() / total));
        assert!(close(exact.lse[3 * head + 1], total.ln()));
    }
}

#[test]
fn grouped_heads_share_keys_and_values() {
    // Equal scores: out is the mean of the values of key/value head h / 2.
    let shape = AttentionShape::new(2, 4, 2, 1).kv_heads(2);
    let v: Vec<f32> = (0..8).map(|n| n as f32).collect();
    let exact = reference::attention(&shape, &[0.0f32; 16], &[1.0; 8], &v, &Full).unwrap();
    let per_head: Vec<f64> = exact.out.chunks(2).map(|rows| rows[0]).collect();
    assert_eq!(per_head, [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5]);
}

#[test]
fn causal_rows_without_keys_are_zero() {
    // Four queries, two keys, bottom-right: the first two queries see nothing.
    let shape = AttentionShape::new(1, 1, 2, 1).q_len(4);
    let exact = reference::attention(&shape, &[1.0f32; 4], &[1.0; 2], &[3.0, 5.0], &Causal).unwrap();
    assert_eq!(exact.out, [0.0, 0.0, 3.0, 4.0]);
    assert_eq!(exact.lse[..2], [f64::from(f32::MIN); 2]);
}

#[test]
fn huge_scores_do_not_overflow() {
    agrees_with_offset(1e4);
    agrees_with_offset(-1e4);
}

fn agrees_with_offset(offset: f32) {
    let (out, lse) = two_keys(one_query(), [offset, offset + 1.0], None);
    let (want_out, want_lse) = by_hand(0.0, 1.0);
    assert!((out - want_out).abs() < 1e-10 && (lse - f64::from(offset) - want_lse).abs() < 1e-10);
}

/// The same tensors in another layout.
fn laid_out<E: Element>(tensors: &Tensors<E>, from: &AttentionShape, to: &AttentionShape) -> Tensors<E> {
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
    let (b, h, g, lq, lk) = (from.batch, from.heads, from.kv_heads, from.q_len, from.kv_len);
    Tensors {
        q: copy(&tensors.q, to.len_q(), [b, h, lq, from.head_dim], from.q_strides(), to.q_strides()),
        k: copy(&tensors.k, to.len_k(), [b, g, lk, from.head_dim], from.k_strides(), to.k_strides()),
        v: copy(&tensors.v, to.len_v(), [b, g, lk, from.value_dim], from.v_strides(), to.v_strides()),
        bias: None,
    }
}

#[test]
fn layouts_agree_with_contiguous_copies() {
    let shape = AttentionShape::new(2, 4, 5, 3).kv_heads(2).kv_len(7).value_dim(6);
    let tensors = reference::random::<f32>(&shape, Kind::Normal, 1).unwrap();
    let want = reference::attention_with(&shape, &tensors.inputs(), &Causal).unwrap();

    let strided = shape
        .q_layout(Layout::Strided(Strides { batch: 100, head: 20, row: 4 }))
        .k_layout(Layout::Strided(Strides { batch: 3, head: 50, row: 6 }))
        .v_layout(Layout::Blhd);
    for other in [shape.layout(Layout::Blhd), strided] {
        let moved = laid_out(&tensors, &shape, &other);
        let got = reference::attention_with(&other, &moved.inputs(), &Causal).unwrap();
        assert_eq!(got, want);
    }
    // A stride of 0: all batch items and heads read the same keys.
    let shared = shape.k_layout(Layout::Strided(Strides { batch: 0, head: 0, row: 3 }));
    let inputs = Inputs { k: &tensors.k[..21], ..tensors.inputs() };
    let got = reference::attention_with(&shared, &inputs, &Causal).unwrap();
    let repeated = tensors.k[..21].repeat(4);
    let inputs = Inputs { k: &repeated, ..tensors.inputs() };
    assert_eq!(got, reference::attention_with(&shape, &inputs, &Causal).unwrap());
}

#[test]
fn element_types_are_read_exactly() {
    fn run<E: Element>(element: ElementType) -> Output {
        let shape = AttentionShape::new(1, 2, 9, 8).elements(element);
        let tensors = reference::random::<E>(&shape, Kind::Arange, 0).unwrap();
        let widened = |x: &[E]| x.iter().map(|&x| Into::<f64>::into(x) as f32).collect::<Vec<f32>>();
        let (q, k, v) = (widened(&tensors.q), widened(&tensors.k), widened(&tensors.v));
        let wide = reference::attention(&shape.elements(ElementType::F32), &q, &k, &v, &Full).unwrap();
        assert_eq!(reference::attention_with(&shape, &tensors.inputs(), &Full).unwrap(), wide);
        wide
    }
    assert_ne!(run::<half::f16>(ElementType::F16), run::<half::bf16>(ElementType::Bf16));
}

#[test]
fn empty_calls_give_nothing() {
    let shape = AttentionShape::new(0, 2, 4, 8);
    assert_eq!(
        reference::attention::<f32>(&shape, &[], &[], &[], &Full).unwrap(),
        Output { out: vec![], lse: vec![] }
    );
    let shape = AttentionShape::new(1, 1, 4, 1).q_len(0);
    assert!(reference::attention(&shape, &[], &[0.0f32; 4], &[0.0; 4], &Full).unwrap().out.is_empty());
}

#[test]
fn nan_reaches_only_the_rows_that_depend_on_it() {
    let shape = AttentionShape::new(1, 1, 4, 1);
    let v = [1.0, 2.0, f32::NAN, 4.0];
    let exact = reference::attention(&shape, &[1.0f32; 4], &[1.0; 4], &v, &Causal).unwrap();
    assert_eq!(exact.out[..2], [1.0, 1.5]);
    assert!(exact.out[2].is_nan() && exact.out[3].is_nan() && exact.lse.iter().all(|lse| lse.is_finite()));
}

#[test]
fn bad_input_is_named() {
    let shape = AttentionShape::new(1, 1, 4, 2);
    let ok = [0.0f32; 8];
    let error = |shape: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], bias: Option<&[f32]>| {
        reference::attention_with(shape, &Inputs { q, k, v, bias }, &Full).unwrap_err().to_string()
    };
    assert_eq!(error(&shape, &ok[..7], &ok, &ok, None), "q: need 8 elements, got 7 elements");
    assert_eq!(error(&shape, &ok, &[0.0; 9], &ok, None), "k: need 8 elements, got 9 elements");
    assert_eq!(error(&shape, &ok, &ok, &[], None), "v: need 8 elements, got 0 elements");
    let strided = shape.v_layout(Layout::Strided(Strides { batch: 0, head: 0, row: 3 }));
    assert_eq!(error(&strided, &ok, &ok, &ok, None), "v: need at least 11 elements, got 8 elements");
    assert_eq!(
        error(&shape, &ok, &ok, &ok, Some(&ok)),
        "bias: need none, as the shape has none, got a tensor"
    );
    let biased = shape.bias(BiasStrides::broadcast([1, 1, 4, 4]));
    assert_eq!(error(&biased, &ok, &ok, &ok, None), "bias: need a tensor, as the shape has one, got none");
    assert_eq!(error(&biased, &ok, &ok, &ok, Some(&ok)), "bias: need at least 16 elements, got 8 elements");
    let half = shape.input(ElementType::F16);
    assert_eq!(
        error(&half, &ok, &ok, &ok, None),
        "q, k and v: need f16 elements, as the shape says, got f32"
    );
    assert!(error(&shape.kv_heads(3), &ok, &ok, &ok, None).starts_with("kv_heads: "));

    let inputs = Inputs { q: &ok, k: &ok, v: &ok, bias: None };
    let at = reference::Position { batch: 0, head: 1, i: 0 };
    let error = reference::row(&shape, &inputs, &Full, at, None).unwrap_err().to_string();
    assert_eq!(error, "position.head: need below 1, got 1");
}
