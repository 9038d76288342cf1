//! What is sent, against what is needed.

use crate::harness::{Outcome, Problem, run, shape};
use half::f16;
use wgpu_attention::ranks::{needs, source};
use wgpu_attention::{AttentionShape, Causal, Full, Window};
use wgpu_attention_ranks::{HEADER_BYTES, Pass, Plan};

/// Bytes of keys and values that a rank sends in a pass: those that the others need of it.
fn expected(problem: &Problem, rank: usize, element: usize) -> Vec<(usize, usize, usize)> {
    let (shape, plan, ranks) = (&problem.attention.shape, &problem.plan, problem.ranks());
    let of = |step: usize| {
        let to = (rank + step) % ranks;
        assert_eq!(source(to, step, ranks), rank);
        let sides = [&plan.queries, &plan.keys];
        let needs = needs(&*problem.pattern, shape.extent(), sides, to, plan.block).unwrap();
        let keys = needs.keys(rank);
        let row = shape.batch * shape.kv_heads * (shape.head_dim + shape.value_dim);
        (keys > 0).then(|| (step, to, HEADER_BYTES + keys * row * element))
    };
    (1..ranks).filter_map(of).collect()
}

fn sent(outcome: &Outcome, call: usize, pass: Pass) -> Vec<(usize, usize, usize)> {
    outcome.traffic[call].of(pass).map(|sent| (sent.step, sent.to, sent.bytes)).collect()
}

#[test]
fn keys_travel_once_and_their_gradients_return() {
    let grouped = AttentionShape::new(2, 4, 200, 16).kv_heads(2).value_dim(8);
    for problem in [
        Problem::new(grouped, Full, |shape| Plan::contiguous(shape, 3)),
        Problem::new(grouped, Causal, |shape| {
            // The last 8 rows would travel.
            Ok(Plan::zig_zag(shape, 2)?.share(false))
        }),
        Problem::new(shape(520), Window { before: 70, after: 0 }, |shape| Plan::contiguous(shape, 4)),
    ] {
        let outcomes = run::<f16>(&problem);
        let ranks = problem.ranks();
        for (rank, outcome) in outcomes.iter().enumerate() {
            let keys = expected(&problem, rank, 2);
            assert_eq!(sent(outcome, 1, Pass::Forward), keys);
            assert_eq!(sent(outcome, 2, Pass::Backward), keys);
            assert_eq!(sent(outcome, 0, Pass::Handshake).len(), ranks - 1);
            assert_eq!(outcome.traffic[1].sent().len(), keys.len());
            assert_eq!(outcome.traffic[2].messages(Pass::Backward), keys.len());
            let bytes: usize = keys.iter().map(|(.., bytes)| bytes).sum();
            assert_eq!(outcome.traffic[1].bytes(Pass::Forward), bytes as u64);
            // Gradients come back from where keys went, in f32.
            for (step, to, bytes) in expected(&problem, rank, 4) {
                assert!(sent(&outcomes[to], 2, Pass::Gradients).contains(&(step, rank, bytes)));
            }
        }
        let returned: usize = outcomes.iter().map(|it| it.traffic[2].messages(Pass::Gradients)).sum();
        let keys: usize = (0..ranks).map(|rank| expected(&problem, rank, 4).len()).sum();
        assert_eq!(returned, keys);
    }
}

#[test]
fn a_window_speaks_to_neighbours_alone() {
    let problem =
        Problem::new(shape(520), Window { before: 70, after: 0 }, |shape| Plan::contiguous(shape, 4));
    let outcomes = run::<f32>(&problem);
    // Two blocks of 64 keys, k and v of 16 elements, to the next rank.
    let message = (1, 1, HEADER_BYTES + 128 * 32 * 4);
    assert_eq!(sent(&outcomes[0], 1, Pass::Forward), [message]);
    assert!(sent(&outcomes[3], 1, Pass::Forward).is_empty());
    // The number of stretches that are needed, to each; then the stretches.
    let counts = 3 * (HEADER_BYTES + 8) as u64;
    assert_eq!(outcomes[0].traffic[0].bytes(Pass::Needs), counts);
    assert_eq!(outcomes[1].traffic[0].bytes(Pass::Needs), counts + (HEADER_BYTES + 16) as u64);
}
