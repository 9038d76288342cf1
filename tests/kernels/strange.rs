//! A row that attends a number that is not finite is not finite, all of it and its lse; every other row has the bits that it has
//! without it. Which rows attend it is the pattern's own word, asked here.

use crate::repeats::rows_of;
use crate::support::{Case, Cut, combinations, cut, kinds_of_tile, picked, typed};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{Kind, Tensors};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Alibi, AttentionShape, Buckets, Causal, Element, Full, KernelPath, Not, Options, Parts, Score, Site,
    Slopes, Storage, Strided, StridedPart, Temperature, Window,
};

/// Where the number lies: one element of a query, of a key, of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Query(usize),
    Key(usize),
    Value(usize),
}

const STRANGE: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
const BATCH: usize = 1;
const HEAD: usize = 3;

/// Puts a number into one element of batch item 1, head 3 or its key head.
fn put<Q: Element, KV: Element>(case: &Case, tensors: &mut Tensors<Q, KV>, place: Place, x: f64) {
    let (attention, shape) = (&case.attention, &case.attention.shape);
    let kv_head = shape.kv_head(HEAD);
    match place {
        Place::Query(i) => {
            let at = attention.q_strides().at(BATCH, HEAD, i) + shape.head_dim - 1;
            tensors.q[at] = Q::from_f64(x);
        }
        Place::Key(j) => {
            let at = attention.k_strides().at(BATCH, kv_head, j) + shape.head_dim / 2;
            tensors.k[at] = KV::from_f64(x);
        }
        Place::Value(j) => {
            let at = attention.v_strides().at(BATCH, kv_head, j) + shape.value_dim / 2;
            tensors.v[at] = KV::from_f64(x);
        }
    }
}

/// Whether a row attends it.
fn attends(case: &Case, place: Place, site: &Site, i: usize) -> bool {
    let shape = case.attention.shape;
    let keep = |j| case.pattern.as_dyn().keep(site, i, j);
    let shares = site.batch == BATCH && shape.kv_head(site.head) == shape.kv_head(HEAD);
    match place {
        Place::Query(query) => {
            (site.batch, site.head, i) == (BATCH, HEAD, query) && (0..shape.kv_len).any(keep)
        }
        Place::Key(j) | Place::Value(j) => shares && keep(j),
    }
}

/// Whether one of the elements is neither NaN nor infinite.
fn any_finite<O: Element>(bytes: &[u8]) -> bool {
    bytemuck::pod_collect_to_vec::<u8, O>(bytes).into_iter().any(|x| Into::<f64>::into(x).is_finite())
}

fn check<Q: Element, KV: Element, O: Element>(case: &Case, parts: &Parts) {
    let shape = case.attention.shape;
    let tensors = case.tensors::<Q, KV>();
    let before = rows_of::<Q, KV, O>(case, &tensors, parts, 1);
    let (last, middle) = (shape.kv_len - 1, shape.kv_len / 2);
    let places = [
        Place::Query(shape.q_len - 1),
        Place::Query(0),
        Place::Key(middle),
        Place::Value(middle),
        Place::Value(0),
        Place::Key(last),
        Place::Value(last),
    ];
    let (mut reached, mut kept) = (0, 0);
    for (n, place) in places.into_iter().enumerate() {
        let x = STRANGE[n % 3];
        let mut spoilt = tensors.clone();
        put(case, &mut spoilt, place, x);
        let after = rows_of::<Q, KV, O>(case, &spoilt, parts, 1);
        for (n, (before, after)) in before.iter().zip(&after).enumerate() {
            let (rest, i) = (n / shape.q_len, n % shape.q_len);
            let site = Site { batch: rest / shape.heads, head: rest % shape.heads, extent: shape.extent() };
            let row = format!("batch {}, head {}, query {i}", site.batch, site.head);
            if attends(case, place, &site, i) {
                reached += 1;
                let (out, lse) = after.split_at(after.len() - 4);
                assert!(!any_finite::<O>(out), "{x} at {place:?} is not in all of {row}\n  {case}");
                assert!(!any_finite::<f32>(lse), "{x} at {place:?} is not in lse of {row}\n  {case}");
            } else {
                kept += 1;
                assert!(before == after, "{x} at {place:?} reached {row}\n  {case}");
            }
        }
    }
    assert!(reached > 0 && kept > 0, "{reached} rows attend something, {kept} do not\n  {case}");
}

/// Queries before the first key, keys that no row attends, heads that share a key head.
fn shape() -> AttentionShape {
    AttentionShape::new(2, 4, 75, 24).kv_heads(2).kv_len(141).value_dim(16)
}

fn patterns(case: &Case) -> Vec<Case> {
    let extent = case.attention.shape.extent();
    vec![
        case.clone().pattern(Full),
        case.clone().pattern(Causal),
        case.clone().pattern(Window { before: 20, after: 1 }),
        case.clone().pattern(picked("predicate", &extent, 1)),
    ]
}

/// In one part, and in two whose results merge.
fn whole_and_merged(case: &Case) {
    typed!(case.attention.storage, check(case, &case.parts()));
    typed!(case.attention.storage, check(case, &cut(case, Cut::Keys, 3)));
}

const KINDS: [TileKind; 2] = [TileKind::Staged, TileKind::Direct];

#[test]
fn under_every_pattern_and_tile() {
    for kind in KINDS {
        let case = Case::new(shape()).options(Options::default().tile_kind(kind).splits(1));
        patterns(&case).iter().for_each(whole_and_merged);
    }
}

#[test]
fn under_a_lowered_pattern() {
    for kind in KINDS {
        let pattern = Strided { stride: 12, part: StridedPart::Both, causal: true };
        let case = Case::new(shape()).pattern(pattern).options(Options::default().tile_kind(kind));
        let parts = Parts::lower(&pattern, case.grid()).expect("parts");
        assert!(parts.parts().len() > 1);
        check::<f32, f32, f32>(&case, &parts);
    }
}

#[test]
fn over_splits_and_packed_heads() {
    for kind in KINDS {
        for (q_len, kv_len) in [(1, 300), (7, 141), (75, 141), (75, 41)] {
            let shape = shape().q_len(q_len).kv_len(kv_len);
            let case = Case::new(shape).options(Options::default().tile_kind(kind).splits(3));
            patterns(&case).iter().for_each(|case| check::<f32, f32, f32>(case, &case.parts()));
        }
    }
}

#[test]
fn in_every_element_type() {
    let storages = [
        Storage::all(F16),
        Storage::all(Bf16),
        Storage::all(F16).out(F32),
        Storage::all(F32).kv(F16),
        Storage::all(F32).out(F16),
        Storage::all(F32).out(Bf16),
    ];
    for [storage, kind] in combinations([storages.len(), KINDS.len()]) {
        let options = Options::default().tile_kind(KINDS[kind]);
        let case = Case::new(shape()).storage(storages[storage]).options(options);
        whole_and_merged(&case.pattern(Causal));
    }
}

/// No term makes a finite score of one that is not.
#[test]
fn under_terms_of_the_score() {
    for kind in kinds_of_tile(None) {
        let case = Case::new(shape()).options(Options::default().tile_kind(kind));
        let score = Score::new().softcap(3.0).alibi();
        patterns(&case.score(score)).iter().for_each(|case| check::<f32, f32, f32>(case, &case.parts()));
    }
}

/// Puts a number into a term's tensor, and looks for it in the rows that `reads` names.
fn spoil(case: &Case, (name, at, x): (&str, usize, f32), reads: impl Fn(&Site, usize) -> bool) {
    let shape = case.attention.shape;
    let tensors = case.tensors::<f32, f32>();
    let mut spoilt = tensors.clone();
    spoilt.term_mut(name).expect("a tensor of the score")[at] = x;
    let [before, after] =
        [tensors, spoilt].map(|tensors| rows_of::<f32, f32, f32>(case, &tensors, &case.parts(), 1));
    let mut reached = 0;
    for (n, (before, after)) in before.iter().zip(&after).enumerate() {
        let (rest, i) = (n / shape.q_len, n % shape.q_len);
        let site = Site { batch: rest / shape.heads, head: rest % shape.heads, extent: shape.extent() };
        let row = format!("{x} in {name}[{at}] and batch {}, head {}, query {i}", site.batch, site.head);
        if reads(&site, i) {
            reached += 1;
            assert!(!any_finite::<f32>(after), "{row}: some of it is finite\n  {case}");
        } else {
            assert!(before == after, "{row}: it has other bits\n  {case}");
        }
    }
    assert!(reached > 0 && reached < before.len(), "{reached} rows read {name}\n  {case}");
}

/// A cap makes a number of what is none, and minus infinity weighs nothing: neither hides what a row has read.
#[test]
fn in_the_tensors_of_terms() {
    let alibi = || Score::new().with(Alibi::new(Slopes::Given));
    let buckets = || Score::new().with(Buckets::new(8, 32));
    let temperature = || Score::new().with(Temperature);
    for kind in kinds_of_tile(None) {
        let case = Case::new(shape()).options(Options::default().tile_kind(kind));
        // Of later keys alone a slope of minus infinity makes scores of minus infinity, and nothing else.
        let later_alone = case.clone().pattern(Not(Causal));
        for case in patterns(&case).into_iter().chain([later_alone]) {
            let keep = |site: &Site, i: usize, j: usize| case.pattern.as_dyn().keep(site, i, j);
            let own = |site: &Site, i| site.head == HEAD && (0..shape().kv_len).any(|j| keep(site, i, j));
            // Of 8 buckets, the first has the query's own key and later ones.
            let later = |site: &Site, i: usize| {
                let own = (i + shape().kv_len).saturating_sub(shape().q_len);
                site.head == HEAD && (own..shape().kv_len).any(|j| keep(site, i, j))
            };
            for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for score in [alibi(), alibi().softcap(3.0)] {
                    spoil(&case.clone().score(score), ("slopes", HEAD, x), own);
                }
                spoil(&case.clone().score(buckets().softcap(3.0)), ("bucket_table", HEAD, x), later);
            }
            for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0] {
                for score in [temperature(), temperature().softcap(3.0)] {
                    spoil(&case.clone().score(score), ("temperature", HEAD, x), own);
                }
            }
        }
    }
}

/// Weights of most keys are 0 in f32, of attended keys too: what they weigh must not decide who attends them.
#[test]
fn under_scores_so_steep_that_weights_vanish() {
    for score in [Score::new().scale(300.0), Score::new().scale(300.0).softcap(1e4)] {
        for kind in kinds_of_tile(None) {
            let case = Case::new(shape().score(score.clone())).kind(Kind::Peaky);
            patterns(&case.options(Options::default().tile_kind(kind))).iter().for_each(whole_and_merged);
        }
    }
}

#[test]
fn in_cooperative_matrices() {
    let options = Options::default().path(KernelPath::Cooperative);
    let case = Case::new(shape()).options(options).storage(Storage::all(F16).out(F32));
    patterns(&case).iter().for_each(whole_and_merged);
    let steep = case.clone().score(Score::new().scale(30.0)).kind(Kind::Peaky);
    patterns(&steep).iter().for_each(|case| check::<half::f16, half::f16, f32>(case, &case.parts()));
    whole_and_merged(&case.storage(Storage::all(F16)).pattern(Causal));
}
