//! What planning costs and what its plans waste, at n = 32,768 and 12 heads: any pattern, any parameters.

use crate::drawn::*;
use std::time::Instant;
use wgpu_attention::mask::{BlockGrid, Parts};
use wgpu_attention::{
    And, BigBird, BlockLayout, Blocks, Causal, Counter, Dilated, Document, Fixed, Full, Global, KeyLengths,
    Longformer, Mask, Not, Or, PairPredicate, Permutation, Prefix, Random, Strided, StridedPart, Window,
};

const N: usize = 32_768;

fn every(step: usize) -> Vec<usize> {
    (0..N).step_by(step).collect()
}

/// Ids of `documents` streams, packed token by token.
fn streams(documents: usize) -> Document {
    Document::new((0..N).map(|j| (j * 7919 % documents) as u32).collect::<Vec<_>>())
}

fn bigbird(block: usize, random: usize) -> BigBird {
    BigBird { block, window: 3, global: 1, random, seed: 5 }
}

fn layout(block: usize) -> Blocks {
    let rows = N.div_ceil(block) as u32;
    let row = |r: u32| [r / 2, r].into_iter().filter(|&c| c != r / 2 || r / 2 != r).collect();
    let layout = BlockLayout::from_columns(rows as usize, &[(0..rows).map(row).collect()]);
    Blocks { block, layout: layout.expect("columns ascend") }
}

/// Positions in steps of 7919.
fn permutation(len: usize) -> Permutation {
    Permutation::new((0..len).map(|n| (n * 7919 % len) as u32).collect::<Vec<_>>())
}

/// Positions in no order at all.
fn disorder() -> Permutation {
    let mut positions: Vec<u32> = (0..N as u32).collect();
    let draw = Counter::new(3, 0);
    (1..N).rev().for_each(|at| positions.swap(at, draw.below(at as u64, at as u64 + 1) as usize));
    Permutation::new(positions)
}

fn mask(sizes: [usize; 4], keep: impl Fn(usize) -> bool) -> Mask {
    Mask::new(sizes, (0..N).map(keep)).expect("sizes fit")
}

fn patterns() -> Vec<(&'static str, AnyOne)> {
    let strided = Strided::new(128).expect("valid");
    let column = |stride| Strided { stride, part: StridedPart::Column, causal: true };
    let random = |block, count| Random { block, count, seed: 7 };
    let longformer = |window, tokens| Longformer::new(window, tokens).expect("tokens ascend");
    let global = |step| Global::new(every(step)).expect("tokens ascend");
    vec![
        ("full", boxed(Full)),
        ("causal", boxed(Causal)),
        ("window of 512", boxed(Window { before: 511, after: 0 })),
        ("window of 20", boxed(Window { before: 19, after: 0 })),
        ("window of 1", boxed(Window { before: 0, after: 0 })),
        ("prefix", boxed(Prefix { len: 1001 })),
        ("key lengths", boxed(And(Causal, KeyLengths { lengths: vec![30_001] }))),
        ("bigbird 28", boxed(bigbird(28, 2))),
        ("bigbird 12", boxed(bigbird(12, 2))),
        ("bigbird 20", boxed(bigbird(20, 3))),
        ("bigbird 48", boxed(bigbird(48, 3))),
        ("bigbird 100", boxed(bigbird(100, 3))),
        ("bigbird 1", boxed(bigbird(1, 2))),
        ("bigbird ends 28", boxed(bigbird(28, 2).first_and_last())),
        ("bigbird lists 28", boxed(bigbird(28, 0).with_lists(layout(28).layout))),
        ("random 28", boxed(random(28, 3))),
        ("random 1", boxed(random(1, 3))),
        ("random 300", boxed(random(300, 3))),
        ("blocks 28", boxed(layout(28))),
        ("documents of 1000", boxed(Document::new((0..N as u32).map(|j| j / 1000).collect::<Vec<_>>()))),
        ("documents of 20", boxed(Document::new((0..N as u32).map(|j| j / 20).collect::<Vec<_>>()))),
        ("permutation", boxed(permutation(N))),
        ("permutation in order", boxed(Permutation::new((0..N as u32).collect::<Vec<_>>()).query(true))),
        ("1,000 streams", boxed(streams(1000))),
        ("3 streams", boxed(streams(3))),
        ("1,000 causal streams", boxed(And(Causal, streams(1000)))),
        ("streams in a window", boxed(And(Window { before: 4095, after: 0 }, streams(100)))),
        ("streams and padding", boxed(And(streams(100), KeyLengths { lengths: vec![30_001] }))),
        ("global, every third", boxed(global(3))),
        ("global, every 1,000th", boxed(global(1000))),
        ("causal global", boxed(And(Causal, global(3)))),
        ("not global", boxed(Not(global(3)))),
        ("longformer", boxed(longformer(512, every(1000)))),
        ("longformer, every third", boxed(longformer(512, every(3)))),
        ("strided", boxed(strided)),
        ("strided columns", boxed(column(1000))),
        ("strided, both ways", boxed(Strided { causal: false, ..strided })),
        ("dilated", boxed(Dilated::new(8192, 0, 1000).expect("valid"))),
        ("fixed", boxed(Fixed::new(100, 7).expect("valid"))),
        (
            "fixed, padded",
            boxed(And(Fixed::new(128, 8).expect("valid"), KeyLengths { lengths: vec![30_001] })),
        ),
        ("strided or global", boxed(Or(strided, global(1000)))),
        ("window or streams", boxed(Or(Window { before: 100, after: 0 }, streams(1000)))),
        ("bigbird or streams", boxed(Or(bigbird(28, 2), streams(1000)))),
        ("causal bigbird", boxed(And(Causal, bigbird(28, 2)))),
        ("strided and bigbird", boxed(And(strided, bigbird(28, 2)))),
        ("not not strided", boxed(Not(Not(strided)))),
        ("neither", boxed(Not(Or(Not(Causal), Not(global(3)))))),
        ("permutation or window", boxed(Or(permutation(N), Window { before: 5, after: 1 }))),
        ("permutation and not causal", boxed(And(permutation(N), Not(Causal)))),
        ("permutation or padding", boxed(Or(permutation(N), KeyLengths { lengths: vec![24_984] }))),
        ("permutation or random", boxed(Or(permutation(N), random(65, 2)))),
        ("global or streams", boxed(Or(global(11), streams(3)))),
        (
            "fixed and strided columns",
            boxed(And(Fixed { causal: false, ..Fixed::new(2, 1).expect("valid") }, column(7))),
        ),
        ("fixed and random", boxed(And(Fixed::new(3, 1).expect("valid"), random(17, 2)))),
        ("not strided columns", boxed(And(Causal, Not(column(181))))),
        ("random or longformer", boxed(Or(random(100, 1), longformer(180, (1000..3000).collect())))),
        ("longformer or not global", boxed(Or(longformer(412, every(7000)), Not(global(11))))),
        ("disorder and not global", boxed(And(disorder(), Not(global(3))))),
        ("global or disorder", boxed(Or(global(3), disorder()))),
        ("disorder and not streams", boxed(And(disorder(), Not(streams(1000))))),
        ("neither bigbird nor longformer", boxed(Not(Or(bigbird(28, 2), longformer(512, every(1000)))))),
        ("nor one with many tokens", boxed(Not(Or(bigbird(28, 2), longformer(512, every(3)))))),
        (
            "bigbird and not dilated",
            boxed(And(bigbird(28, 2), Not(Dilated::new(8192, 0, 1000).expect("valid")))),
        ),
        (
            "window and not every second key",
            boxed(And(Window { before: 511, after: 0 }, Not(Dilated::new(8192, 8192, 2).expect("valid")))),
        ),
        ("mask of keys", boxed(mask([1, 1, 1, N], |j| j * j % 13 == 1))),
        ("mask of queries", boxed(mask([1, 1, N, 1], |i| i * i % 13 == 1))),
        ("causal mask of keys", boxed(And(Causal, mask([1, 1, 1, N], |j| j * j % 13 == 1)))),
        ("sparse predicate", boxed(PairPredicate::new(|i, j| (i + 31 * j) % 97 == 0))),
    ]
}

/// The goal is half a second on two idle cores and at most 4 visited pairs per kept one. Machines that run tests are busy:
/// the best of three tries counts, and ten times the goal is a failure; planning pair by pair takes minutes. Only a
/// predicate is asked for every pair.
#[test]
fn any_pattern_is_planned_in_time_and_visits_little_or_says_why() {
    let plan = |pattern: &AnyOne| {
        let start = Instant::now();
        let parts = Parts::lower(pattern, BlockGrid::new(N, N).heads(12)).expect("it is valid");
        (start.elapsed().as_secs_f64(), parts)
    };
    let mut slow = Vec::new();
    for (name, pattern) in patterns() {
        let (mut seconds, parts) = plan(&pattern);
        let most = if name == "sparse predicate" { f64::INFINITY } else { 5.0 };
        for _ in 1..3 {
            seconds = if seconds > most { plan(&pattern).0.min(seconds) } else { seconds };
        }
        let (waste, note) = (parts.waste(), parts.note().unwrap_or(""));
        let megabytes = parts.bytes() as f64 / 1e6;
        println!("{name:24} {seconds:.3} s {megabytes:7.2} MB {waste:8.2} {note}");
        assert_eq!(waste > 4.0, !note.is_empty(), "{name}");
        assert!(waste <= 4.0 || NOTED.contains(&name), "{name}: {waste}");
        if seconds > most {
            slow.push(format!("{name}: {seconds} s"));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

/// What no order of queries and keys and no block of 16 x 16 helps.
const NOTED: [&str; 7] = [
    "window of 1",
    "bigbird 1",
    "random 1",
    "dilated",
    "strided and bigbird",
    "fixed and random",
    "sparse predicate",
];
