//! Patterns as values: equal where their parameters are, with equal hashes, whatever holds them.

use crate::drawn::*;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use wgpu_attention::{
    And, BigBird, BlockLayout, Blocks, Causal, Dilated, Document, First, Fixed, FixedPart, Full, Global,
    KeyLengths, Longformer, Mask, Not, Or, PairPredicate, Pattern, Permutation, Predicate, Prefix, Random,
    Site, Strided, StridedPart, Window,
};

/// Every pattern of the crate, and each again with every parameter changed in turn: no two are the same.
fn all_different() -> Vec<AnyOne> {
    let layout = |cells: [bool; 4]| BlockLayout::new([1, 2, 2], cells).expect("sizes fit");
    let mask = |sizes, values: [bool; 4]| Mask::new(sizes, values).expect("sizes fit");
    let bigbird = BigBird { block: 16, window: 3, global: 1, random: 1, seed: 5 };
    let strided = Strided { stride: 4, part: StridedPart::Both, causal: true };
    let fixed = Fixed { stride: 4, summary: 1, part: FixedPart::Both, causal: true };
    let window = |before, after| Window { before, after };
    let random = |block, count, seed| Random { block, count, seed };
    let dilated = |before, after, step| Dilated { before, after, step };
    let mut all: Vec<AnyOne> = vec![boxed(Full), boxed(Causal), boxed(Causal::top_left())];
    all.extend([window(1, 2), window(2, 1), window(2, 2)].map(boxed));
    all.extend([1, 2].map(|len| boxed(Prefix { len })));
    all.extend([1, 2].map(|count| boxed(First { count })));
    all.extend([vec![0, 0, 1, 1], vec![0, 1, 1, 1]].map(|ids| boxed(Document::new(ids))));
    all.push(boxed(Document::per_batch([vec![0, 0, 1, 1], vec![0, 0, 1, 1]])));
    let permutation = || Permutation::new([2, 0, 1]);
    all.extend([permutation(), permutation().query(true), permutation().given(1)].map(boxed));
    all.push(boxed(Permutation::new([2, 1, 0])));
    all.push(boxed(Permutation::per_batch([vec![2, 0, 1], vec![2, 0, 1]])));
    all.extend([vec![1, 2], vec![2, 1], vec![1, 2, 3]].map(|lengths| boxed(KeyLengths { lengths })));
    all.push(boxed(Blocks { block: 2, layout: layout([true, false, true, true]) }));
    all.push(boxed(Blocks { block: 3, layout: layout([true, false, true, true]) }));
    all.push(boxed(Blocks { block: 2, layout: layout([true, true, true, true]) }));
    all.push(boxed(mask([1, 1, 1, 4], [true, false, true, true])));
    all.push(boxed(mask([1, 1, 4, 1], [true, false, true, true])));
    all.push(boxed(mask([1, 1, 2, 2], [true, false, true, true])));
    all.push(boxed(mask([1, 1, 1, 4], [true, false, true, false])));
    all.extend([dilated(4, 0, 2), dilated(5, 0, 2), dilated(4, 1, 2), dilated(4, 0, 3)].map(boxed));
    all.extend([strided, Strided { stride: 5, ..strided }, Strided { causal: false, ..strided }].map(boxed));
    all.push(boxed(Strided { part: StridedPart::Local, ..strided }));
    all.extend([fixed, Fixed { stride: 5, ..fixed }, Fixed { summary: 2, ..fixed }].map(boxed));
    all.extend([Fixed { part: FixedPart::Block, ..fixed }, Fixed { causal: false, ..fixed }].map(boxed));
    all.extend([vec![1], vec![1, 2]].map(|tokens| boxed(Global { tokens: tokens.into() })));
    all.push(boxed(Longformer { window: 2, global: [1].into() }));
    all.push(boxed(Longformer { window: 4, global: [1].into() }));
    all.push(boxed(Longformer { window: 2, global: [1, 2].into() }));
    all.extend([random(8, 1, 5), random(9, 1, 5), random(8, 2, 5), random(8, 1, 6)].map(boxed));
    all.extend([bigbird, BigBird { block: 8, ..bigbird }, BigBird { window: 5, ..bigbird }].map(boxed));
    all.extend([BigBird { global: 2, ..bigbird }, BigBird { random: 2, ..bigbird }].map(boxed));
    all.push(boxed(BigBird { seed: 6, ..bigbird }));
    all.push(boxed(bigbird.first_and_last()));
    all.push(boxed(bigbird.with_lists(layout([true, false, true, true]))));
    all.push(boxed(bigbird.with_lists(layout([true, false, false, true]))));
    all.extend([boxed(And(Causal, Full)), boxed(And(Full, Causal)), boxed(Or(Causal, Full))]);
    all.extend([boxed(Or(Causal, And(Causal, Full))), boxed(Not(Causal)), boxed(Not(Not(Causal)))]);
    all
}

#[test]
fn equal_parameters_are_equal_and_hash_alike() {
    let (one, other, state) = (all_different(), all_different(), RandomState::new());
    for (a, pattern) in one.iter().enumerate() {
        for (b, twin) in other.iter().enumerate() {
            assert_eq!(**pattern == **twin, a == b, "{pattern:?} and {twin:?}");
            assert_eq!(
                state.hash_one(&**pattern) == state.hash_one(&**twin),
                a == b,
                "{pattern:?} and {twin:?}"
            );
        }
        let copy: Box<dyn Pattern> = (**pattern).to_owned();
        assert!(*copy == **pattern && format!("{copy:?}") == format!("{:?}", pattern.identity()));
    }
    let plans: HashMap<Box<dyn Pattern>, usize> =
        one.iter().map(|pattern| (**pattern).to_owned()).zip(0..).collect();
    assert_eq!(plans.len(), one.len());
    assert!(other.iter().enumerate().all(|(n, twin)| plans.get(&**twin) == Some(&n)));
}

#[test]
fn whatever_holds_a_pattern_it_is_the_same() {
    let window = Window { before: 3, after: 0 };
    let by_hand = And(Causal, Not(window));
    let (a, b): (Box<dyn Pattern>, AnyOne) = (Box::new(&Causal), Arc::new(Arc::new(window)));
    let held = And(&a, Not(&b));
    assert!(held.identity() == by_hand.identity());
    assert!(*held.identity().to_pattern() == *(&by_hand as &dyn Pattern));
    let state = RandomState::new();
    assert_eq!(state.hash_one(held.identity()), state.hash_one(by_hand.identity()));
}

/// Closures cannot be compared: the `Arc` that holds one can.
#[test]
fn a_predicate_equals_its_clones_alone() {
    let make = |step: usize| boxed(PairPredicate::new(move |i, j| (i + j).is_multiple_of(step)));
    let (one, other) = (make(3), make(3));
    assert!(*one == *one.clone() && *one == *(*one).to_owned() && *one != *other);
    let by_head = |head| Predicate::new(move |site: &Site, _, _| site.head == head);
    let sites = by_head(0);
    assert!(sites == sites.clone() && sites != by_head(0));
}
