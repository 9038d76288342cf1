//! Bad input, and ranks that were given different calls.

use crate::harness::{on_ranks, shape};
use half::f16;
use std::time::Duration;
use wgpu_attention::ranks::Assignment;
use wgpu_attention::{
    Attention, AttentionShape, BiasStrides, Causal, Full, KeyLengths, Layout, Layouts, PairPredicate,
    Pattern, Score, Softcap,
};
use wgpu_attention_ranks::{DistributedAttention, Error, Plan, Threads};
use wgpu_attention_testing::gpu;

/// What three ranks say of which the last is given something else.
fn differ(
    [usual, other]: [Attention; 2],
    [pattern, other_pattern]: [&dyn Pattern; 2],
    [plan, other_plan]: [&Plan; 2],
) -> Vec<Option<Error>> {
    let exchanges = Threads::new(3).into_iter().enumerate().collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let threads = exchanges.into_iter().map(|(rank, own)| {
            let (attention, pattern, plan) =
                if rank == 2 { (&other, other_pattern, other_plan) } else { (&usual, pattern, plan) };
            scope.spawn(move || {
                DistributedAttention::with(own, gpu(), attention.clone(), pattern, plan.clone())
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics").err()).collect()
    })
}

/// Each rank names the first that differs from it.
fn named(errors: &[Option<Error>], name: &str) {
    for (error, other) in errors.iter().zip([2, 2, 0]) {
        match error {
            Some(Error::Differs { what, rank, .. }) => assert_eq!((what.as_str(), *rank), (name, other)),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn ranks_with_different_calls_are_told_apart() {
    let plain: Attention = shape(150).into();
    let plan = Plan::contiguous(&plain.shape, 3).unwrap();
    let of_call = |other: Attention| {
        let plans = [&plan, &Plan::contiguous(&other.shape, 3).unwrap()];
        differ([plain.clone(), other], [&Causal, &Causal], plans)
    };
    named(&of_call(shape(151).into()), "q_len");
    named(&of_call(shape(150).kv_len(149).into()), "kv_len");
    named(&of_call(AttentionShape::new(1, 1, 150, 8).into()), "head_dim");
    named(&of_call(shape(150).score(Score::new().scale(2.0))), "the score");
    let plans = |other: Plan| differ([plain.clone(), plain.clone()], [&Causal, &Causal], [&plan, &other]);
    named(&plans(Plan::zig_zag(&plain.shape, 3).unwrap()), "the assignment of queries");
    named(&plans(plan.clone().block(128)), "block");
    named(&plans(plan.clone().limit(Duration::from_secs(7))), "the time limit (ms)");
    let patterns = |a: &dyn Pattern, b: &dyn Pattern| {
        named(&differ([plain.clone(), plain.clone()], [a, b], [&plan, &plan]), "pattern");
    };
    patterns(&Causal, &Full);
    let lengths = |length| KeyLengths { lengths: vec![length] };
    patterns(&lengths(100), &lengths(101));
    // Closures print the same.
    let every = |step: usize| PairPredicate::new(move |_, j| j % step == 0);
    patterns(&every(2), &every(3));
}

/// What one rank of one says.
fn refused(attention: Attention, plan: &Plan) -> String {
    let said = on_ranks(Threads::new(1), |own| {
        DistributedAttention::with(own, gpu(), attention.clone(), &Full, plan.clone()).err()
    });
    said[0].as_ref().expect("an error").to_string()
}

#[test]
fn what_ranks_cannot_compute_is_refused() {
    let (shape, rows) = (shape(64), |len| Assignment::uneven(&[len]).unwrap());
    let plan = Plan::new(rows(64), rows(64));
    let score = |score| refused(shape.score(score), &plan);
    assert!(score(Score::new().alibi()).starts_with("score: need scale and softcap alone"));
    assert!(score(Score::new().bias(BiasStrides::broadcast([1, 1, 64, 64]))).contains("bias"));
    assert!(score(Score::new().dropout(0.5, 1)).contains("dropout"));
    assert!(score(Score::new().with(Softcap::new(f32::NAN))).contains("softcap"));
    let lying = Attention::from(shape).layouts(Layouts::default().k(Layout::Blhd));
    assert!(refused(lying, &plan).starts_with("k_layout: need Layout::Bhld"));
    let plain = || Attention::from(shape);
    assert!(refused(plain(), &Plan::new(rows(63), rows(64))).starts_with("queries: need an assignment"));
    assert!(
        refused(plain(), &Plan::contiguous(&shape, 2).unwrap()).starts_with("plan.queries: need 1 ranks")
    );
    assert!(refused(plain(), &plan.clone().block(48)).starts_with("block: need a power of two"));
}

#[test]
fn slices_are_checked_before_anything_is_sent() {
    on_ranks(Threads::new(1), |own| {
        let (mut attention, x) =
            (DistributedAttention::new(own, gpu(), shape(64), &Full).unwrap(), vec![0.5f32; 64 * 16]);
        let said = |error: Error| error.to_string();
        assert!(said(attention.forward(&x[1..], &x, &x).unwrap_err()).starts_with("q: need 1024 elements"));
        assert!(said(attention.forward(&x, &x, &x[16..]).unwrap_err()).starts_with("v: need 1024 elements"));
        let halves = vec![f16::ONE; x.len()];
        assert!(
            said(attention.forward(&halves, &halves, &halves).unwrap_err())
                .starts_with("q, k, v: need slices")
        );
        // None of them was a call.
        let forward = attention.forward(&x, &x, &x).unwrap();
        let mut short = forward.clone();
        short.state.pop();
        let mut backward = |forward, dout| attention.backward(&x, &x, &x, forward, dout);
        assert!(said(backward(&short, &x).unwrap_err()).starts_with("state: need 128 elements"));
        assert!(said(backward(&forward, &x[1..]).unwrap_err()).starts_with("dout: need 1024 elements"));
        assert_eq!(backward(&forward, &x).unwrap().dv.len(), x.len());
    });
}
