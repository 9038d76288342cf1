//! Rows that all ranks get: queries that travel, keys that are handed on.

use crate::faults::{LIMIT, When, Wrong, errors, names_the_second, run_on};
use crate::harness::{Outcome, Problem, check, on_ranks, run, run_rank, shape, whole};
use half::f16;
use std::time::Instant;
use wgpu_attention::ranks::Assignment;
use wgpu_attention::ranks::stretches::count;
use wgpu_attention::{
    And, AttentionShape, BigBird, Causal, Element, First, Global, KeyLengths, Or, PairPredicate, Pattern,
    Window,
};
use wgpu_attention_ranks::{Error, Exchange, Fault, Pass, Plan, Result, Round, Threads};
use wgpu_attention_testing::gpu;

const BIGBIRD: BigBird = BigBird { block: 16, window: 3, global: 1, random: 0, seed: 3 };

fn plan(shape: &AttentionShape, ranks: usize, zig_zag: bool) -> Plan {
    let rows = |len| match zig_zag {
        true => Assignment::zig_zag(len, 16, ranks).unwrap(),
        false => Assignment::contiguous(len, 16, ranks).unwrap(),
    };
    Plan::new(rows(shape.q_len), rows(shape.kv_len)).block(16)
}

fn problem(pattern: impl Pattern + 'static, shape: AttentionShape, ranks: usize, zig_zag: bool) -> Problem {
    Problem::new(shape, pattern, |shape| Ok(plan(shape, ranks, zig_zag)))
}

/// How many queries and keys all ranks get.
fn common<Q: Element>(problem: &Problem) -> [usize; 2] {
    problem.common::<Q>().each_ref().map(|rows| count(rows))
}

/// Runs and checks; all ranks share so many queries and keys.
fn exact<Q: Element>(problem: &Problem, shared: [usize; 2]) -> [Vec<f32>; 5] {
    assert_eq!(common::<Q>(problem), shared, "{:?} {:?}", problem.pattern, problem.plan);
    let whole = whole(problem, &run::<Q>(problem));
    check::<Q>(problem, &whole).unwrap_or_else(|e| panic!("{e}"));
    whole
}

#[test]
fn global_rows_travel_and_global_keys_are_handed_on() {
    // Two ranks have no tree that is shorter than sending to each.
    for (ranks, keys) in [(2, 0), (4, 16), (5, 16), (8, 16)] {
        exact::<f32>(&problem(BIGBIRD, shape(960), ranks, false), [16, keys]);
    }
    exact::<f16>(&problem(BIGBIRD, shape(960), 4, false), [16, 16]);
    // Random blocks that happen to be asked for by all go with them.
    let random = problem(BigBird { random: 1, ..BIGBIRD }, shape(960), 4, false);
    let shared = common::<f32>(&random);
    assert!(shared[0] == 16 && shared[1] > 16, "{shared:?}");
    exact::<f32>(&random, shared);
}

#[test]
fn several_owners() {
    // Rank 0 has the first of four stretches and the last; the tokens lie with three ranks.
    let tokens = Global { tokens: [3, 200, 500].into() };
    exact::<f32>(&problem(Or(Window { before: 9, after: 9 }, tokens.clone()), shape(720), 4, true), [48, 48]);
    exact::<f32>(&problem(tokens, shape(720), 5, false), [48, 48]);
}

#[test]
fn grouped_heads_padding_and_other_lengths() {
    let grouped = AttentionShape::new(2, 4, 1280, 16).kv_heads(2).value_dim(8);
    let padded = And(BIGBIRD, KeyLengths { lengths: vec![1280, 300] });
    exact::<f32>(&problem(padded, grouped, 4, false), [16, 16]);
    // Keys alone: the first ones, under a causal mask.
    let first = And(Causal, Or(Window { before: 20, after: 0 }, First { count: 5 }));
    exact::<f32>(&problem(first, shape(640), 4, false), [0, 16]);
    exact::<f32>(&problem(first, shape(640).kv_len(700), 5, true), [0, 16]);
    // Queries alone: few of them, over many keys.
    let few = PairPredicate::new(|i, j| (i < 3 && j % 3 == 0) || i == j);
    exact::<f32>(&problem(few, shape(640), 4, false), [16, 0]);
    exact::<f32>(&problem(Window { before: 4000, after: 4000 }, shape(40).kv_len(1500), 3, false), [40, 0]);
}

#[test]
fn ranks_without_rows_and_stretches_within_blocks() {
    let tokens = Or(Window { before: 5, after: 5 }, Global { tokens: [70].into() });
    let uneven = |queries: &[usize], keys: &[usize]| {
        let rows = |rows| Assignment::uneven(rows).unwrap();
        Problem::new(shape(700), tokens.clone(), |_| Ok(Plan::new(rows(queries), rows(keys)).block(16)))
    };
    // The query's block begins with its rank's rows; the key's block lies with two ranks.
    for (queries, keys, shared) in [
        ([61, 0, 239, 400], [350, 350, 0, 0], [16, 0]),
        ([61, 39, 200, 400], [71, 229, 0, 400], [16, 16]),
        ([700, 0, 0, 0], [175, 175, 175, 175], [0, 0]),
    ] {
        let problem = uneven(&queries, &keys);
        exact::<f32>(&problem, shared);
    }
    // More ranks than blocks of queries that stay.
    exact::<f32>(&problem(BIGBIRD, shape(320), 23, false), [0, 0]);
}

#[test]
fn the_same_bits_twice_and_fewer_bytes() {
    let sharing = problem(BIGBIRD, shape(960), 5, false);
    let direct =
        Problem { plan: sharing.plan.clone().share(false), ..problem(BIGBIRD, shape(960), 5, false) };
    let outcomes = [&sharing, &direct].map(run::<f32>);
    let whole = outcomes.each_ref().map(|it| whole(&sharing, it));
    check::<f32>(&direct, &whole[1]).unwrap();
    assert!(self::whole(&sharing, &run::<f32>(&sharing)) == whole[0]);
    for call in [1, 2] {
        let bytes = outcomes.each_ref().map(|ranks| {
            let of = |it: &Outcome| it.traffic[call].sent().iter().map(|sent| sent.bytes).sum::<usize>();
            ranks.iter().map(of).sum::<usize>()
        });
        assert!(bytes[0] < bytes[1], "{bytes:?}");
    }
    // Each rank but the owner gets them once, and sends one result.
    let messages = |pass| outcomes[0].iter().map(|it| it.traffic[1].messages(pass)).sum::<usize>();
    assert_eq!((messages(Pass::Spread), messages(Pass::Collect)), (4, 4));
    // The owner sends a message in each round of the tree, not to each rank.
    assert_eq!(outcomes[0][0].traffic[1].messages(Pass::Spread), 3);
}

fn small() -> Problem {
    let problem = problem(BIGBIRD, shape(640), 4, false);
    Problem { plan: problem.plan.clone().limit(LIMIT), ..problem }
}

#[test]
fn a_rank_that_fails_on_the_way_is_an_error_in_time() {
    for wrong in [Wrong::Gone, Wrong::Mute, Wrong::Header] {
        for pass in [Pass::Common, Pass::Spread, Pass::Collect] {
            let began = Instant::now();
            let errors = errors(run_on(&small(), wrong, When::First(pass)));
            let time = began.elapsed();
            // Compiling is part of it.
            assert!(time < 20 * LIMIT, "{wrong:?} {pass:?}: {time:?}");
            let named = errors.iter().any(names_the_second);
            assert!(named, "{wrong:?} {pass:?}: {errors:?}");
            // Whose result needs it has none.
            assert!(errors[0].is_some() || errors[3].is_some(), "{wrong:?} {pass:?}: {errors:?}");
            let alone = matches!((&errors[1], wrong), (Some(Error::Broken { .. }), Wrong::Gone));
            assert!(alone || wrong != Wrong::Gone, "{errors:?}");
        }
    }
}

/// What becomes of the numbers of a result on its way back.
type Change = fn(&mut [f32], usize);

/// An exchange that changes results that this rank sends.
struct Changed {
    inner: Threads,
    change: Change,
    call: u8,
}

impl Exchange for Changed {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn start(&mut self, mut round: Round) -> Result<(), Fault> {
        for message in &mut round.sends {
            let is = message.bytes[12..16] == (Pass::Collect as u32).to_le_bytes();
            if is && message.bytes[0] == self.call {
                let mut numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&message.bytes[16..]);
                (self.change)(&mut numbers, 16);
                message.bytes.splice(16.., bytemuck::cast_slice(&numbers).iter().copied());
            }
        }
        self.inner.start(round)
    }

    fn poll(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        self.inner.poll()
    }

    fn waiting_for(&self) -> Vec<usize> {
        self.inner.waiting_for()
    }
}

/// The calls: 1 is the handshake.
const FORWARD: u8 = 2;
const BACKWARD: u8 = 3;

#[test]
fn results_that_are_lost_or_added_twice_are_seen() {
    let problem = problem(BIGBIRD, shape(640), 4, false);
    let run = |at: usize, call: u8, change: Change| {
        let (inputs, dout) = (problem.inputs::<f32>(), problem.dout());
        let of_rank = |(rank, inner): (usize, Threads)| Changed {
            inner,
            change: if rank == at { change } else { |_, _| () },
            call,
        };
        let exchanges = Threads::new(4).into_iter().enumerate().map(of_rank).collect();
        let outcomes = on_ranks(exchanges, |own| run_rank(&problem, gpu(), own, &inputs, &dout).unwrap());
        check::<f32>(&problem, &whole(&problem, &outcomes))
    };
    let nothing: Change = |_, _| ();
    // The states (m, l) lie behind 16 rows of out: a state that is merged twice has twice the weight; one that is left out has none.
    let twice: Change = |numbers, rows| {
        let states = numbers.len() - 2 * rows;
        numbers[states..].chunks_exact_mut(2).for_each(|state| state[1] *= 2.0);
    };
    let left_out: Change = |numbers, rows| {
        let states = numbers.len() - 2 * rows;
        numbers[states..].fill(0.0);
    };
    // One row of the 16 was computed elsewhere alone.
    let a_row: Change = |numbers, rows| {
        let state = numbers.len() - 2 * rows;
        numbers[state + 2 * 7..][..2].fill(0.0);
    };
    // A query's gradient, a key's, a value's.
    let first: Change = |numbers, _| numbers[..16 * 16].fill(0.0);
    let keys: Change = |numbers, _| numbers[16 * 16..2 * 16 * 16].iter_mut().for_each(|x| *x *= 2.0);
    let values: Change = |numbers, _| numbers[2 * 16 * 16..].iter_mut().for_each(|x| *x *= 2.0);
    // Rank 3 is a leaf of the tree, rank 1 has it behind it.
    for at in [1, 3] {
        run(at, FORWARD, nothing).unwrap();
        for change in [twice, left_out, a_row] {
            assert!(run(at, FORWARD, change).is_err(), "rank {at}");
        }
        for change in [first, keys, values] {
            assert!(run(at, BACKWARD, change).is_err(), "rank {at}");
        }
    }
}
