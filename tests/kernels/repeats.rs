//! The same call gives the same bits; and what a row does not attend, NaN and infinity too, does not reach it.

use crate::support::{Case, Cut, Draw, cut, failed, gpu, picked, run, run_times, typed};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::{AttentionShape, BiasStrides, Element, Parts, Site};

/// Calls of many kinds, all quick.
fn calls() -> Vec<(Case, Cut)> {
    let shape = AttentionShape::new(2, 2, 150, 16).kv_heads(1);
    let odd = AttentionShape::new(1, 3, 67, 7);
    let terms = shape.softcap(3.0).alibi(true).bias(BiasStrides::broadcast([1, 2, 150, 150]));
    let mut calls = vec![];
    for shape in [shape, odd, odd.elements(F16), odd.elements(Bf16), terms] {
        let case = Case::new(shape).pattern(picked("causal", &shape.extent(), 1)).kind(Kind::Peaky);
        calls.extend([Cut::Whole, Cut::Pairs, Cut::Gathers].map(|how| (case.clone(), how)));
    }
    calls
}

/// Rows of what a call wrote, as bits: out and lse.
fn rows_of<E: Element, O: Element>(
    case: &Case,
    tensors: &Tensors<E>,
    parts: &Parts,
    times: usize,
) -> Vec<Vec<u8>> {
    let shape = &case.shape;
    let got = run_times::<E, O>(gpu(), shape, &tensors.inputs(), parts, true, times);
    let got = got.unwrap_or_else(|e| panic!("{}", failed("guards", case, e)));
    let lse = got.lse.expect("asked for");
    let strides = shape.out_strides();
    let row = |n: usize| {
        let at = strides.at(n / shape.q_len / shape.heads, n / shape.q_len % shape.heads, n % shape.q_len);
        let out = bytemuck::cast_slice(&got.out[at..at + shape.value_dim]);
        [out, bytemuck::bytes_of(&lse[n])].concat()
    };
    (0..shape.len_lse()).map(row).collect()
}

fn rows<E: Element, O: Element>(case: &Case, how: Cut, times: usize) -> Vec<Vec<u8>> {
    rows_of::<E, O>(case, &case.tensors(), &cut(case, how, case.seed), times)
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let rows = |(case, how): &(Case, Cut), times| typed!(case.shape, rows(case, *how, times));
    let calls = calls();
    let first: Vec<_> = calls.iter().map(|call| rows(call, 1)).collect();
    for (call, first) in calls.iter().zip(&first).rev() {
        assert!(*first == rows(call, 1), "after other calls\n  {}; Cut::{:?}", call.0, call.1);
        assert!(
            *first == rows(call, 3),
            "recorded three times in one encoder\n  {}; Cut::{:?}",
            call.0,
            call.1
        );
    }
}

const POISONS: [f64; 5] = [0.25, -777.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// Asserts that `spoil` changes no row but those that `depends` names. Returns how many it must not change.
fn unaffected<E: Element>(
    case: &Case,
    parts: &Parts,
    what: &str,
    poisons: &[f64],
    spoil: impl Fn(&mut Tensors<E>, E),
    depends: impl Fn(&Site, usize) -> bool,
) -> usize {
    let tensors = case.tensors::<E>();
    let shape = case.shape;
    let before = rows_of::<E, f32>(case, &tensors, parts, 1);
    let mut compared = 0;
    for &poison in poisons {
        let mut spoiled = tensors.clone();
        spoil(&mut spoiled, E::from_f64(poison));
        let after = rows_of::<E, f32>(case, &spoiled, parts, 1);
        for (n, (before, after)) in before.iter().zip(&after).enumerate() {
            let (batch, head, i) =
                (n / shape.q_len / shape.heads, n / shape.q_len % shape.heads, n % shape.q_len);
            if !depends(&Site { batch, head, extent: shape.extent() }, i) {
                compared += 1;
                assert!(
                    before == after,
                    "{what} {poison} reached batch {batch}, head {head}, query {i}\n  {case}"
                );
            }
        }
    }
    compared
}

/// Sets some keys of a key/value head, in k and in v.
fn set_keys<E: Element>(
    case: &Case,
    tensors: &mut Tensors<E>,
    batch: usize,
    kv_head: usize,
    keys: &[usize],
    to: E,
) {
    let (k, v) = (case.shape.k_strides(), case.shape.v_strides());
    for &j in keys {
        tensors.k[k.at(batch, kv_head, j)..][..case.shape.head_dim].fill(to);
        tensors.v[v.at(batch, kv_head, j)..][..case.shape.value_dim].fill(to);
    }
}

/// Spoils each of a few keys; the rows that do not attend them must not change.
pub(crate) fn spoil_keys<E: Element>(case: &Case, how: Cut, poisons: &[f64]) -> usize {
    let shape = case.shape.input(E::TYPE).output(F32);
    let case = Case { shape, ..case.clone() };
    let parts = cut(&case, how, case.seed);
    let bias = case.tensors::<E>().bias;
    let mut draw = Draw::new(case.seed, 17);
    let keys = [0, draw.below(shape.kv_len), draw.below(shape.kv_len), shape.kv_len - 1];
    let (batch, kv_head) = (draw.below(shape.batch), draw.below(shape.kv_heads));
    let depends = |site: &Site, i: usize| {
        let reads = (site.batch, shape.kv_head(site.head)) == (batch, kv_head);
        let removed = |j| {
            let strides = shape.bias.zip(bias.as_ref());
            strides.is_some_and(|(strides, bias)| {
                bias[strides.at(site.batch, site.head, i, j)] == f32::NEG_INFINITY
            })
        };
        reads && keys.iter().any(|&j| case.pattern.as_dyn().keep(site, i, j) && !removed(j))
    };
    let spoil = |tensors: &mut Tensors<E>, to| set_keys(&case, tensors, batch, kv_head, &keys, to);
    let what = format!("keys {keys:?} of batch {batch}, kv_head {kv_head} as");
    unaffected(&case, &parts, &what, poisons, spoil, depends)
}

#[test]
fn a_key_reaches_only_the_rows_that_attend_it() {
    let names = [
        "causal",
        "window",
        "blocks_per_head",
        "predicate",
        "document",
        "key_lengths",
        "mask",
        "one_key_a_row",
    ];
    for (n, name) in names.into_iter().enumerate() {
        for (m, blocks) in [[64, 64], [16, 16]].into_iter().enumerate() {
            let seed = (10 * n + m) as u64;
            let shape = AttentionShape::new(2, 2, 150, 16).kv_heads(1).kv_len(140);
            let case = Case::new(shape).pattern(picked(name, &shape.extent(), seed)).seed(seed);
            let whole = case.clone().blocks(blocks[0], blocks[1]);
            let compared = spoil_keys::<f32>(&whole, Cut::Whole, &POISONS)
                + spoil_keys::<half::f16>(&whole, Cut::Whole, &POISONS)
                + spoil_keys::<f32>(&case, if m == 0 { Cut::Pairs } else { Cut::Gathers }, &POISONS);
            assert!(compared > 1000, "only {compared} rows do not depend on the keys\n  {case}");
        }
    }
}

#[test]
fn a_key_that_the_bias_removes_reaches_no_row() {
    // The pair lies in a full block: nothing but the bias says that the row does not attend it.
    let shape = AttentionShape::new(1, 2, 130, 16).bias(BiasStrides::broadcast([1, 1, 130, 130]));
    let case = Case::new(shape);
    let removed = |i: usize, j: usize| j == 70 && i.is_multiple_of(2) || j == 3;
    let spoil = |tensors: &mut Tensors<f32>, to| {
        let bias = tensors.bias.as_mut().expect("the shape has one");
        (0..130 * 130).filter(|n| removed(n / 130, n % 130)).for_each(|n| bias[n] = f32::NEG_INFINITY);
        set_keys(&case, tensors, 0, 1, &[3, 70], to);
    };
    let mut before = case.tensors();
    spoil(&mut before, 0.5);
    for poison in [f32::NAN, f32::INFINITY, -7.0] {
        let mut after = before.clone();
        set_keys(&case, &mut after, 0, 1, &[3, 70], poison);
        let rows = |tensors| rows_of::<f32, f32>(&case, tensors, &case.parts(), 1);
        for (n, (before, after)) in rows(&before).iter().zip(&rows(&after)).enumerate() {
            let (head, i) = (n / 130, n % 130);
            let depends = head == 1 && !removed(i, 70);
            assert!(
                depends || before == after,
                "{poison} at keys 3 and 70 reached head {head}, query {i}\n  {case}"
            );
        }
    }
}

#[test]
fn a_bias_outside_the_set_reaches_no_row() {
    let shape = AttentionShape::new(1, 2, 130, 16).bias(BiasStrides::broadcast([1, 2, 130, 130]));
    for name in ["causal", "window", "predicate", "blocks"] {
        let case = Case::new(shape).pattern(picked(name, &shape.extent(), 3));
        let spoil = |tensors: &mut Tensors<f32>, to| {
            for (n, bias) in tensors.bias.iter_mut().flatten().enumerate() {
                let site = Site { batch: 0, head: n / 16_900, extent: shape.extent() };
                if !case.pattern.as_dyn().keep(&site, n % 16_900 / 130, n % 130) {
                    *bias = to;
                }
            }
        };
        assert!(
            unaffected(&case, &case.parts(), "the bias outside of S as", &POISONS, spoil, |_, _| false)
                > 1000
        );
    }
}

#[test]
fn a_query_reaches_no_other_row() {
    for (name, how) in
        [("full", Cut::Whole), ("causal", Cut::Whole), ("window", Cut::Pairs), ("causal", Cut::Gathers)]
    {
        let shape = AttentionShape::new(2, 2, 70, 16).kv_len(130);
        let case = Case::new(shape).pattern(picked(name, &shape.extent(), 2));
        for query in [0, 33, 69] {
            let at = shape.q_strides().at(1, 0, query);
            let spoil = |tensors: &mut Tensors<f32>, to| tensors.q[at..at + 16].fill(to);
            let depends = |site: &Site, i| (site.batch, site.head, i) == (1, 0, query);
            let what = format!("query {query} as");
            assert!(unaffected(&case, &cut(&case, how, 5), &what, &POISONS, spoil, depends) > 1000);
        }
    }
}

#[test]
fn the_runner_keeps_what_lies_between_rows() {
    // Every call of this suite is guarded; this one has gaps of every kind, in each element type, from several parts.
    use crate::support::Placement;
    for element in [F32, F16, Bf16] {
        for (dim, gap) in [(16, 4), (16, 3), (7, 1), (7, 2)] {
            for how in [Cut::Whole, Cut::Pairs] {
                let shape = Placement::Gap(gap).apply(AttentionShape::new(2, 2, 67, dim).elements(element));
                let case = Case::new(shape);
                typed!(shape, guarded(&case, how));
            }
        }
    }
}

fn guarded<E: Element, O: Element>(case: &Case, how: Cut) {
    let parts = cut(case, how, 1);
    run::<E, O>(gpu(), &case.shape, &case.tensors().inputs(), &parts, true)
        .unwrap_or_else(|e| panic!("{}", failed("guards", case, e)));
}
