//! Every element within its bound; the same bits twice.

use crate::harness::{Problem, check, run, shape, softcapped, whole};
use half::{bf16, f16};
use wgpu_attention::ranks::Assignment;
use wgpu_attention::{
    And, AttentionShape, BigBird, Causal, Element, Full, Global, KeyLengths, Not, PairPredicate, Random,
    Strided, Window,
};
use wgpu_attention_ranks::Plan;

/// Runs a problem and checks it.
fn exact<Q: Element>(problem: &Problem) -> [Vec<f32>; 5] {
    let whole = whole(problem, &run::<Q>(problem));
    check::<Q>(problem, &whole).unwrap_or_else(|e| panic!("{e}"));
    whole
}

/// Small blocks, so that short sequences have many.
fn contiguous(ranks: usize) -> impl Fn(&AttentionShape) -> wgpu_attention::Result<Plan> {
    move |shape| {
        let rows = |len| Assignment::contiguous(len, 16, ranks);
        Ok(Plan::new(rows(shape.q_len)?, rows(shape.kv_len)?).block(16))
    }
}

fn zig_zag(ranks: usize) -> impl Fn(&AttentionShape) -> wgpu_attention::Result<Plan> {
    move |shape| {
        let rows = |len| Assignment::zig_zag(len, 16, ranks);
        Ok(Plan::new(rows(shape.q_len)?, rows(shape.kv_len)?).block(16))
    }
}

#[test]
fn full_attention_by_any_number_of_ranks() {
    for ranks in [1, 2, 3, 5] {
        exact::<f32>(&Problem::new(shape(150), Full, contiguous(ranks)));
    }
}

#[test]
fn causal_attention_in_stripes() {
    for ranks in [2, 4] {
        exact::<f32>(&Problem::new(shape(260), Causal, zig_zag(ranks)));
    }
    exact::<f32>(&Problem::new(shape(200), Causal, |shape| Plan::zig_zag(shape, 3)));
}

#[test]
fn sparse_patterns() {
    let len = 320;
    exact::<f32>(&Problem::new(shape(len), Window { before: 20, after: 5 }, contiguous(4)));
    let bigbird = BigBird { block: 16, window: 3, global: 1, random: 2, seed: 3 };
    exact::<f32>(&Problem::new(shape(len), bigbird, contiguous(4)));
    exact::<f32>(&Problem::new(shape(len), Global { tokens: [3, 200].into() }, contiguous(3)));
    exact::<f32>(&Problem::new(shape(len), Strided::new(16).unwrap(), zig_zag(2)));
}

#[test]
fn ranks_without_rows() {
    // Three blocks for five ranks; then all rows with the last of three.
    exact::<f32>(&Problem::new(shape(40), Causal, contiguous(5)));
    exact::<f32>(&Problem::new(shape(40), Causal, |shape| {
        let rows = |len| Assignment::uneven(&[0, 0, len]);
        Ok(Plan::new(rows(shape.q_len)?, rows(shape.kv_len)?))
    }));
    // Queries with one, keys with the others.
    exact::<f32>(&Problem::new(shape(70), Full, |_| {
        Ok(Plan::new(Assignment::uneven(&[70, 0, 0])?, Assignment::uneven(&[0, 33, 37])?))
    }));
    // No row at all.
    exact::<f32>(&Problem::new(shape(16).q_len(0), Full, contiguous(2)));
}

#[test]
fn uneven_rows_that_end_within_a_block() {
    let uneven = |_: &AttentionShape| {
        Ok(Plan::new(Assignment::uneven(&[1, 99, 30])?, Assignment::uneven(&[50, 7, 73])?).block(32))
    };
    exact::<f32>(&Problem::new(shape(130), Causal, uneven));
    exact::<f32>(&Problem::new(shape(130), Window { before: 9, after: 9 }, uneven));
}

#[test]
fn grouped_heads_padding_and_other_lengths() {
    let grouped = AttentionShape::new(2, 4, 100, 16).kv_heads(2);
    let lengths = KeyLengths { lengths: vec![100, 37] };
    exact::<f32>(&Problem::new(grouped, And(Causal, lengths), zig_zag(2)));
    // Heads that differ: what travels is what any of them needs.
    let random = Random { block: 16, count: 2, seed: 4 };
    exact::<f32>(&Problem::new(grouped, random, contiguous(3)));
    exact::<f32>(&Problem::new(shape(90).kv_len(170).value_dim(8), Causal, zig_zag(2)));
    // The first queries see nothing.
    exact::<f32>(&Problem::new(shape(170).kv_len(90), Causal, contiguous(3)));
    exact::<f32>(&Problem::new(shape(50), Not(Full), contiguous(2)));
}

#[test]
fn other_scores_and_types() {
    exact::<f32>(&Problem::new(softcapped(shape(100)), Causal, zig_zag(2)));
    exact::<f16>(&Problem::new(shape(100), Causal, zig_zag(2)));
    exact::<bf16>(&Problem::new(shape(100), Window { before: 30, after: 0 }, contiguous(3)));
}

#[test]
fn closures() {
    exact::<f32>(&Problem::new(shape(90), PairPredicate::new(|i, j| (3 * i + j) % 5 == 0), contiguous(3)));
}

#[test]
fn the_same_bits_twice() {
    let bigbird = BigBird { block: 16, window: 3, global: 1, random: 2, seed: 3 };
    for problem in
        [Problem::new(shape(260), Causal, zig_zag(4)), Problem::new(shape(320), bigbird, contiguous(3))]
    {
        let bits = || {
            let whole = whole(&problem, &run::<f32>(&problem));
            whole.map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let first = bits();
        assert!((0..3).all(|_| bits() == first));
    }
}

#[test]
fn the_check_sees_what_is_wrong() {
    let problem = Problem::new(shape(150), Causal, zig_zag(2));
    let right = exact::<f32>(&problem);
    for tensor in 0..5 {
        let mut wrong = right.clone();
        wrong[tensor][80] += 1e-2;
        assert!(check::<f32>(&problem, &wrong).is_err(), "tensor {tensor}");
    }
}
