//! Relative rows: the bound and the sets, over patterns, parts, orders, element types, packed heads, both scalar tiles by turns.

use crate::support::{
    Case, Cut, PATTERNS, Placement, bound, bound_of_parts, check_all, count, count_of_parts, cut, gather,
    gpu, picked,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::{
    AttentionShape, BiasStrides, Causal, Options, Relative, Score, Storage, Strided, Strides, Temperature,
    Window,
};

/// A row for every distance of a pair.
fn all_rows(shape: &AttentionShape) -> Relative {
    Relative::new(shape.kv_len as i32 - 1, shape.q_len + shape.kv_len - 1)
}

/// u and w, each on its own, and neither.
fn each(shape: &AttentionShape) -> [Relative; 4] {
    [(true, true), (true, false), (false, true), (false, false)].map(|(u, w)| all_rows(shape).u(u).w(w))
}

#[test]
fn u_and_w_may_be_absent() {
    let mut cases = vec![];
    for (q_len, kv_len) in [(67, 75), (75, 67), (130, 130)] {
        let shape = AttentionShape::new(2, 4, q_len, 16).kv_heads(2).kv_len(kv_len);
        for relative in each(&shape) {
            let case = Case::new(shape.score(Score::new().with(relative)));
            cases.push(case.clone().kind(Kind::Peaky));
            cases.push(case.pattern(Causal).without_lse());
        }
    }
    check_all("relative: bound", cases.clone(), bound);
    check_all("relative: count", cases.clone(), count);
    check_all("relative: gather", cases, gather);
}

#[test]
fn every_pattern() {
    let shape = AttentionShape::new(2, 2, 150, 16).kv_len(170);
    let score = Score::new().with(all_rows(&shape).u(true).w(true));
    let case = |(name, _): &(&str, _)| {
        Case::new(shape.score(score.clone())).pattern(picked(name, &shape.extent(), 2))
    };
    let cases: Vec<_> = PATTERNS.iter().map(case).collect();
    check_all("relative: every pattern", cases.clone(), bound);
    check_all("relative: every set", cases, count);
}

#[test]
fn kinds_sizes_and_element_types() {
    let mut cases = vec![];
    for storage in
        [Storage::default(), Storage::all(F16), Storage::all(Bf16).out(F32), Storage::default().kv(F16)]
    {
        for (dim, value_dim) in [(16, 16), (7, 5), (64, 80)] {
            let shape = AttentionShape::new(1, 2, 67, dim).kv_len(90).value_dim(value_dim);
            let attention = shape.score(Score::new().with(all_rows(&shape).u(true).w(true))).storage(storage);
            for kind in [Kind::Normal, Kind::Offset, Kind::Tiny] {
                cases.push(Case::new(&attention).pattern(Causal).kind(kind));
            }
        }
    }
    check_all("relative: kinds, sizes and types", cases, bound);
}

/// Rows shared by heads, of each batch item, in reverse, apart; clipped; fewer rows than distances, where none is missed.
#[test]
fn rows_lie_as_strides_say() {
    let shape = AttentionShape::new(2, 2, 70, 16).kv_len(90);
    let (rows, d) = (159, 16);
    let all = all_rows(&shape).u(true).w(true);
    let last = (rows - 1) * d;
    let near = Window { before: 20, after: 10 };
    let mut cases = vec![];
    for relative in [
        all.strides(Strides::new(0, 0, d)),
        all.strides(Strides::new(2 * rows * d, rows * d, d)),
        all.strides(Strides::new(0, rows * d, -d).offset(last as usize)),
        all.strides(Strides::new(0, 4, 2 * d).offset(8)),
        all.strides(Strides::new(0, 5, 2 * d + 1).offset(3)),
        Relative::new(12, 25).clip(true),
        Relative::new(12, 1).clip(true).w(true),
    ] {
        cases.push(Case::new(shape.score(Score::new().with(relative))));
    }
    for relative in [Relative::new(20, 31), Relative::new(89, 90), Relative::new(40, 200)] {
        let pattern = if relative.distances() == Some([0, 89]) { Window { after: 0, ..near } } else { near };
        cases.push(Case::new(shape.score(Score::new().with(relative))).pattern(pattern));
    }
    check_all("relative: strides", cases, bound);
}

/// Under softcap and temperature, which act on the whole product; then a bias that removes.
#[test]
fn beside_other_terms() {
    let shape = AttentionShape::new(1, 2, 67, 16).kv_len(75);
    let capped = Score::new().softcap(2.0).with(all_rows(&shape));
    let tempered = Score::new().with(Temperature).with(all_rows(&shape).u(true));
    let biased =
        Score::new().scale(0.3).bias(BiasStrides::broadcast([1, 2, 67, 75])).with(all_rows(&shape).w(true));
    let cases =
        [capped, tempered, biased].map(|score| Case::new(shape.score(score)).pattern(Causal).without_lse());
    check_all("relative: beside other terms", cases.clone(), bound);
}

#[test]
fn parts_and_orders() {
    let shape = AttentionShape::new(1, 2, 67, 16).kv_len(90);
    let score = Score::new().with(all_rows(&shape).u(true).w(true));
    for how in [Cut::Keys, Cut::KeysPermuted, Cut::Gathers, Cut::Pairs] {
        let cases = ["full", "causal"]
            .map(|name| Case::new(shape.score(score.clone())).pattern(picked(name, &shape.extent(), 1)));
        check_all(&format!("relative: {how:?}, bound"), cases.clone(), |case| {
            bound_of_parts(gpu(), case, &cut(case, how, 1))
        });
        check_all(&format!("relative: {how:?}, count"), cases, |case| {
            count_of_parts(gpu(), case, &cut(case, how, 1))
        });
    }
    let own = Case::new(shape.score(score)).pattern(Strided::new(8).expect("a stride"));
    check_all("relative: the column part in its order", [own], bound);
}

/// Decoding: a query per head, heads packed into a tile, keys split over workgroups.
#[test]
fn few_queries() {
    let mut cases = vec![];
    for (q_len, heads, kv_heads, splits) in [(1, 8, 2, 3), (1, 2, 2, 1), (6, 6, 2, 2), (40, 4, 1, 1)] {
        let shape = AttentionShape::new(2, heads, q_len, 16).kv_heads(kv_heads).kv_len(600);
        let placed =
            Placement::Gap(4).apply(shape.score(Score::new().with(all_rows(&shape).u(true).w(true))));
        let options = Options::default().splits(splits);
        cases.push(Case::new(&placed).options(options).pattern(Causal).kind(Kind::Peaky));
    }
    // Splits without a tile: the first row tiles see few keys.
    let shape = AttentionShape::new(1, 2, 300, 64);
    for splits in [4, 7] {
        let options = Options::default().splits(splits);
        cases.push(
            Case::new(shape.score(Score::new().with(all_rows(&shape)))).options(options).pattern(Causal),
        );
    }
    check_all("relative, few queries: bound", cases.clone(), bound);
    check_all("relative, few queries: gather", cases, gather);
}
