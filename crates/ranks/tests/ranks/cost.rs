//! What was sent is what the model of the cost says, message for message and byte for byte.

use crate::harness::{Problem, run, shape};
use half::f16;
use wgpu_attention::ranks::{Assignment, Cost, Machine, Travel};
use wgpu_attention::{
    AttentionShape, BigBird, BlockGrid, BlockMask, Causal, Full, Global, Or, Pattern, Window,
};
use wgpu_attention_ranks::{Pass, Plan};

fn check(problem: &Problem) {
    let attention = problem.stored::<f16>();
    let grid = BlockGrid::from(&attention.shape).blocks(problem.plan.block, problem.plan.block);
    let mask = BlockMask::new(&*problem.pattern, grid).unwrap();
    let (rows, machine) = ([&problem.plan.queries, &problem.plan.keys], Machine::new(1e12, 1e9, 1e-6));
    let travel = if problem.plan.share { Travel::Shared } else { Travel::Needed };
    let cost = Cost::new(attention, &mask, rows, travel, machine).unwrap();
    let outcomes = run::<f16>(problem);
    let sums = |passes: &[Pass], call: usize, rank: usize| {
        let traffic = &outcomes[rank].traffic[call];
        passes.iter().fold((0, 0), |(messages, bytes), &pass| {
            (messages + traffic.messages(pass) as u64, bytes + traffic.bytes(pass))
        })
    };
    let received = |passes: &[Pass], call: usize, rank: usize| {
        let all = outcomes.iter().flat_map(|it| it.traffic[call].sent());
        let to_rank = all.filter(|sent| sent.to == rank && passes.contains(&sent.pass));
        to_rank.fold((0, 0), |(messages, bytes), sent| (messages + 1, bytes + sent.bytes as u64))
    };
    for (rank, said) in cost.ranks.iter().enumerate() {
        let passes = [
            (said.forward, 1, &[Pass::Forward, Pass::Spread, Pass::Collect][..]),
            (said.backward, 2, &[Pass::Backward, Pass::Gradients, Pass::Spread, Pass::Collect][..]),
        ];
        for (said, call, passes) in passes {
            let context = format!("{:?}, rank {rank} of {}, {passes:?}", problem.pattern, outcomes.len());
            assert_eq!((said.sent_messages, said.sent_bytes), sums(passes, call, rank), "{context}");
            let got = received(passes, call, rank);
            assert_eq!((said.received_messages, said.received_bytes), got, "{context}");
        }
    }
}

#[test]
fn the_model_says_what_is_sent() {
    let bigbird = BigBird { block: 64, window: 1, global: 1, random: 1, seed: 3 };
    let patterns: [fn(BigBird) -> Box<dyn Pattern>; 4] = [
        |_| Box::new(Full),
        |_| Box::new(Causal),
        |_| Box::new(Window { before: 70, after: 0 }),
        |bigbird| Box::new(bigbird),
    ];
    for ranks in 1..=8 {
        for pattern in patterns {
            // The last block is short.
            for share in [false, true] {
                check(&Problem::new(shape(690), pattern(bigbird), |shape| {
                    Ok(Plan::contiguous(shape, ranks)?.share(share))
                }));
            }
        }
        // Queries that travel, keys that all ask for, from one owner and from several.
        let blocks = |shape: &AttentionShape| {
            let rows = |len| Assignment::zig_zag(len, 16, ranks);
            Ok(Plan::new(rows(shape.q_len)?, rows(shape.kv_len)?).block(16))
        };
        let tokens = Or(Window { before: 9, after: 9 }, Global { tokens: [3, 200, 500].into() });
        let several = Problem::new(shape(960), tokens, blocks);
        let bigbird = Problem::new(shape(960), BigBird { block: 16, ..bigbird }, blocks);
        for problem in [several, bigbird] {
            let [queries, keys] = problem.common::<f16>();
            assert_eq!([queries.is_empty(), keys.is_empty()], [ranks == 1, ranks < 4], "{ranks} ranks");
            check(&problem);
        }
        let grouped = AttentionShape::new(2, 4, 330, 16).kv_heads(2).value_dim(8);
        check(&Problem::new(grouped, Causal, |shape| Plan::zig_zag(shape, ranks)));
    }
}
