//! The same call gives the same bits; and what a row does not attend, NaN and infinity too, does not reach it, while a row
//! that attends one of those says so.

use crate::support::{Case, Cut, Draw, cut, failed, gpu_with, picked, run, run_times, typed};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::{AttentionShape, BiasStrides, Element, Parts, Score, Site, Storage};

/// Calls of many kinds, all quick.
fn calls() -> Vec<(Case, Cut)> {
    let shape = AttentionShape::new(2, 2, 150, 16).kv_heads(1);
    let odd = AttentionShape::new(1, 3, 67, 7);
    let terms = Score::new().softcap(3.0).alibi().bias(BiasStrides::broadcast([1, 2, 150, 150]));
    let [f16, bf16] = [F16, Bf16].map(|element| odd.storage(Storage::all(element)));
    let mut calls = vec![];
    for attention in [shape.into(), odd.into(), f16, bf16, shape.score(terms)] {
        let pattern = picked("causal", &attention.shape.extent(), 1);
        let case = Case::new(attention).pattern(pattern).kind(Kind::Peaky);
        calls.extend([Cut::Whole, Cut::Pairs, Cut::Gathers].map(|how| (case.clone(), how)));
    }
    calls
}

/// Rows of what a call wrote, as bits: out and lse.
pub(crate) fn rows_of<Q: Element, KV: Element, O: Element>(
    case: &Case,
    tensors: &Tensors<Q, KV>,
    parts: &Parts,
    times: usize,
) -> Vec<Vec<u8>> {
    let (attention, shape) = (&case.attention, &case.attention.shape);
    let gpu = gpu_with(case.options);
    let got = run_times::<Q, KV, O>(&gpu, attention, &tensors.inputs(), parts, true, times);
    let got = got.unwrap_or_else(|e| panic!("{}", failed("guards", case, e)));
    let lse = got.lse.expect("asked for");
    let strides = attention.out_strides();
    let row = |n: usize| {
        let at = strides.at(n / shape.q_len / shape.heads, n / shape.q_len % shape.heads, n % shape.q_len);
        let out = bytemuck::cast_slice(&got.out[at..at + shape.value_dim]);
        [out, bytemuck::bytes_of(&lse[n])].concat()
    };
    (0..shape.len_lse()).map(row).collect()
}

fn rows<Q: Element, KV: Element, O: Element>(case: &Case, how: Cut, times: usize) -> Vec<Vec<u8>> {
    rows_of::<Q, KV, O>(case, &case.tensors(), &cut(case, how, case.seed), times)
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let rows = |(case, how): &(Case, Cut), times| typed!(case.attention.storage, rows(case, *how, times));
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

/// Asserts that `spoil` changes no row but those that `depends` names, and that a number that is not finite makes all of those
/// not finite. Returns how many it must not change.
fn reaches_exactly<Q: Element, KV: Element>(
    case: &Case,
    parts: &Parts,
    what: &str,
    poisons: &[f64],
    spoil: impl Fn(&mut Tensors<Q, KV>, f64),
    depends: impl Fn(&Site, usize) -> bool,
) -> usize {
    let tensors = case.tensors::<Q, KV>();
    let shape = case.attention.shape;
    let before = rows_of::<Q, KV, f32>(case, &tensors, parts, 1);
    let mut compared = 0;
    for &poison in poisons {
        let mut spoiled = tensors.clone();
        spoil(&mut spoiled, poison);
        let after = rows_of::<Q, KV, f32>(case, &spoiled, parts, 1);
        for (n, (before, after)) in before.iter().zip(&after).enumerate() {
            let (batch, head, i) =
                (n / shape.q_len / shape.heads, n / shape.q_len % shape.heads, n % shape.q_len);
            let row = format!("batch {batch}, head {head}, query {i}");
            if !depends(&Site { batch, head, extent: shape.extent() }, i) {
                compared += 1;
                assert!(before == after, "{what} {poison} reached {row}\n  {case}");
            } else if !poison.is_finite() {
                let row_of_f32 = bytemuck::pod_collect_to_vec::<u8, f32>(after);
                let all = row_of_f32.iter().all(|x| !x.is_finite());
                assert!(all, "{what} {poison} did not reach {row}: {row_of_f32:?}\n  {case}");
            }
        }
    }
    compared
}

/// Sets some keys of a key/value head, in k and in v.
fn set_keys<Q: Element, KV: Element>(
    case: &Case,
    tensors: &mut Tensors<Q, KV>,
    batch: usize,
    kv_head: usize,
    keys: &[usize],
    to: f64,
) {
    let (k, v) = (case.attention.k_strides(), case.attention.v_strides());
    let shape = case.attention.shape;
    for &j in keys {
        tensors.k[k.at(batch, kv_head, j)..][..shape.head_dim].fill(KV::from_f64(to));
        tensors.v[v.at(batch, kv_head, j)..][..shape.value_dim].fill(KV::from_f64(to));
    }
}

/// Spoils each of a few keys; the rows that do not attend them must not change. The output is f32.
pub(crate) fn spoil_keys<Q: Element, KV: Element, O: Element>(
    case: &Case,
    how: Cut,
    poisons: &[f64],
) -> usize {
    assert_eq!(O::TYPE, F32);
    let shape = case.attention.shape;
    let parts = cut(case, how, case.seed);
    let mut tensors = case.tensors::<Q, KV>();
    let bias = case.bias_strides().zip(tensors.term_mut("bias"));
    let mut draw = Draw::new(case.seed, 17);
    let keys = [0, draw.below(shape.kv_len), draw.below(shape.kv_len), shape.kv_len - 1];
    let (batch, kv_head) = (draw.below(shape.batch), draw.below(shape.kv_heads));
    let depends = |site: &Site, i: usize| {
        let reads = (site.batch, shape.kv_head(site.head)) == (batch, kv_head);
        let removed = |j| {
            bias.as_ref().is_some_and(|(strides, bias)| {
                bias[strides.at(site.batch, site.head, i, j)] == f32::NEG_INFINITY
            })
        };
        reads && keys.iter().any(|&j| case.pattern.as_dyn().keep(site, i, j) && !removed(j))
    };
    let spoil = |tensors: &mut Tensors<Q, KV>, to| set_keys(case, tensors, batch, kv_head, &keys, to);
    let what = format!("keys {keys:?} of batch {batch}, kv_head {kv_head} as");
    reaches_exactly(case, &parts, &what, poisons, spoil, depends)
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
            let halves = whole.clone().storage(Storage::all(F16).out(F32));
            let how = if m == 0 { Cut::Pairs } else { Cut::Gathers };
            let compared = spoil_keys::<f32, f32, f32>(&whole, Cut::Whole, &POISONS)
                + spoil_keys::<half::f16, half::f16, f32>(&halves, Cut::Whole, &POISONS)
                + spoil_keys::<f32, f32, f32>(&case, how, &POISONS);
            assert!(compared > 1000, "only {compared} rows do not depend on the keys\n  {case}");
        }
    }
}

#[test]
fn a_key_that_the_bias_removes_reaches_no_row() {
    // The pair lies in a full block: nothing but the bias says that the row does not attend it.
    let score = Score::new().bias(BiasStrides::broadcast([1, 1, 130, 130]));
    let case = Case::new(AttentionShape::new(1, 2, 130, 16).score(score));
    let removed = |i: usize, j: usize| j == 70 && i.is_multiple_of(2) || j == 3;
    let spoil = |tensors: &mut Tensors<f32>, to| {
        let bias = tensors.term_mut("bias").expect("the score has one");
        (0..130 * 130).filter(|n| removed(n / 130, n % 130)).for_each(|n| bias[n] = f32::NEG_INFINITY);
        set_keys(&case, tensors, 0, 1, &[3, 70], to);
    };
    let mut before = case.tensors();
    spoil(&mut before, 0.5);
    for poison in [f64::NAN, f64::INFINITY, -7.0] {
        let mut after = before.clone();
        set_keys(&case, &mut after, 0, 1, &[3, 70], poison);
        let rows = |tensors| rows_of::<f32, f32, f32>(&case, tensors, &case.parts(), 1);
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
    let shape = AttentionShape::new(1, 2, 130, 16);
    let biased = shape.score(Score::new().bias(BiasStrides::broadcast([1, 2, 130, 130])));
    for name in ["causal", "window", "predicate", "blocks"] {
        let case = Case::new(&biased).pattern(picked(name, &shape.extent(), 3));
        let spoil = |tensors: &mut Tensors<f32>, to| {
            for (n, bias) in tensors.term_mut("bias").into_iter().flatten().enumerate() {
                let site = Site { batch: 0, head: n / 16_900, extent: shape.extent() };
                if !case.pattern.as_dyn().keep(&site, n % 16_900 / 130, n % 130) {
                    *bias = to as f32;
                }
            }
        };
        let what = "the bias outside of S as";
        assert!(reaches_exactly(&case, &case.parts(), what, &POISONS, spoil, |_, _| false) > 1000);
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
            let at = case.attention.q_strides().at(1, 0, query);
            let spoil = |tensors: &mut Tensors<f32>, to| tensors.q[at..at + 16].fill(to as f32);
            let depends = |site: &Site, i| (site.batch, site.head, i) == (1, 0, query);
            let what = format!("query {query} as");
            let parts = cut(&case, how, 5);
            assert!(reaches_exactly(&case, &parts, &what, &POISONS, spoil, depends) > 1000);
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
                let attention = AttentionShape::new(2, 2, 67, dim).storage(Storage::all(element));
                let case = Case::new(Placement::Gap(gap).apply(attention));
                typed!(case.attention.storage, guarded(&case, how));
            }
        }
    }
}

fn guarded<Q: Element, KV: Element, O: Element>(case: &Case, how: Cut) {
    let parts = cut(case, how, 1);
    run::<Q, KV, O>(&gpu_with(case.options), &case.attention, &case.tensors().inputs(), &parts, true)
        .unwrap_or_else(|e| panic!("{}", failed("guards", case, e)));
}
