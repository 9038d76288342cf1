//! Messages that are lost, late, short or wrong; ranks that go. An error on the ranks that wait, in time, and never a result.

use crate::harness::{Outcome, Problem, on_ranks, run_rank, shape};
use std::time::{Duration, Instant};
use wgpu_attention::{Causal, Full};
use wgpu_attention_ranks::{
    DistributedAttention, Error, Exchange, Fault, Pass, Plan, Result, Round, Threads,
};
use wgpu_attention_testing::gpu;

/// What goes wrong in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wrong {
    Nothing,
    /// What this rank sends is lost.
    Lost,
    /// And all that it sends later.
    Mute,
    /// One byte is missing.
    Short,
    /// A byte of a header is another one: a message of another step.
    Header,
    /// A request for keys that the other rank does not have.
    Request,
    /// The round starts so late.
    Late(Duration),
    /// The rank goes.
    Gone,
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    /// In this round: 0 to 2 are the handshake's.
    Round(isize),
    /// When a message of this kind is first sent.
    First(Pass),
}

/// An exchange in which something goes wrong in one round.
pub(crate) struct Faulty {
    pub(crate) inner: Threads,
    pub(crate) wrong: Wrong,
    pub(crate) when: When,
    /// Rounds so far, and that in which it went wrong.
    pub(crate) rounds: [Option<isize>; 2],
}

impl Faulty {
    pub(crate) fn new(inner: Threads, wrong: Wrong, when: When) -> Self {
        Self { inner, wrong, when, rounds: [None; 2] }
    }

    /// Whether it goes wrong in this round, and whether it has.
    fn due(&mut self, round: &Round) -> [bool; 2] {
        let [count, began] = &mut self.rounds;
        let number = count.map_or(0, |count| count + 1);
        *count = Some(number);
        // The kind of a message is the last number of its header.
        let is = |pass: Pass| round.sends.iter().any(|it| it.bytes[12..16] == (pass as u32).to_le_bytes());
        let now = match self.when {
            When::Round(round) => number == round,
            When::First(pass) => began.is_none() && is(pass),
        };
        if now {
            *began = Some(number);
        }
        [now, began.is_some()]
    }
}

impl Exchange for Faulty {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn start(&mut self, mut round: Round) -> Result<(), Fault> {
        let [now, later] = self.due(&round);
        match self.wrong {
            Wrong::Lost if now => round.sends.clear(),
            Wrong::Mute if later => round.sends.clear(),
            Wrong::Short if now => {
                round.sends.iter_mut().for_each(|it| it.bytes.truncate(it.bytes.len() - 1))
            }
            Wrong::Header if now => round.sends.iter_mut().for_each(|it| it.bytes[8] ^= 1),
            Wrong::Request if now => round.sends.iter_mut().for_each(|it| it.bytes[17] ^= 0x7f),
            Wrong::Late(time) if now => std::thread::sleep(time),
            Wrong::Gone if now => return Err(Fault::Broken("the rank ends".into())),
            _ => {}
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

pub(crate) const LIMIT: Duration = Duration::from_millis(1500);

fn problem() -> Problem {
    Problem::new(shape(150), Full, |shape| Ok(Plan::contiguous(shape, 3)?.limit(LIMIT)))
}

/// Runs three ranks, the second of which fails so.
fn run(wrong: Wrong, round: isize) -> Vec<Result<Outcome>> {
    run_on(&problem(), wrong, When::Round(round))
}

/// Runs the ranks of a problem, the second of which fails so.
pub(crate) fn run_on(problem: &Problem, wrong: Wrong, when: When) -> Vec<Result<Outcome>> {
    let (inputs, dout, gpu) = (problem.inputs::<f32>(), problem.dout(), gpu());
    let of_rank = |(rank, inner): (usize, Threads)| {
        Faulty::new(inner, if rank == 1 { wrong } else { Wrong::Nothing }, when)
    };
    let exchanges = Threads::new(problem.ranks()).into_iter().enumerate().map(of_rank).collect();
    on_ranks(exchanges, |own| run_rank(problem, gpu, own, &inputs, &dout))
}

/// Rounds of each call with three ranks: handshake, forward, backward.
const HANDSHAKE: isize = 0;
const FORWARD: isize = 3;
const BACKWARD: isize = 6;

pub(crate) fn errors(outcomes: Vec<Result<Outcome>>) -> Vec<Option<Error>> {
    outcomes.into_iter().map(|outcome| outcome.err()).collect()
}

#[test]
fn nothing_wrong_is_no_error() {
    assert!(errors(run(Wrong::Nothing, 0)).iter().all(Option::is_none));
}

/// Nothing came from the second rank, or it gave up first, or what came of it is not what was due.
pub(crate) fn names_the_second(error: &Option<Error>) -> bool {
    match error {
        Some(Error::Silent { from, .. }) => from.contains(&1),
        Some(Error::Message { rank, .. } | Error::Gone { rank, .. }) => *rank == 1,
        _ => false,
    }
}

/// Rounds in which the second rank sends something.
const SENDING: [isize; 7] =
    [HANDSHAKE, HANDSHAKE + 1, HANDSHAKE + 2, FORWARD, FORWARD + 1, BACKWARD, BACKWARD + 2];

#[test]
fn a_rank_that_falls_silent_is_an_error_in_time() {
    for round in SENDING {
        let began = Instant::now();
        let errors = errors(run(Wrong::Mute, round));
        assert!(began.elapsed() < 8 * LIMIT, "round {round}: {:?}", began.elapsed());
        // The first to give up does so because nothing came; the others may see that it went before their own limit.
        let silent = |error: &Option<Error>| matches!(error, Some(Error::Silent { .. }));
        assert!(errors.iter().any(silent), "round {round}: {errors:?}");
        assert!(errors.iter().any(names_the_second), "round {round}: {errors:?}");
        // Nobody takes a part for the whole.
        assert!(errors.iter().all(Option::is_some) || round == BACKWARD + 2, "round {round}: {errors:?}");
    }
}

#[test]
fn a_lost_message_is_an_error_in_time() {
    for round in SENDING {
        let errors = errors(run(Wrong::Lost, round));
        assert!(errors.iter().any(names_the_second), "round {round}: {errors:?}");
    }
}

#[test]
fn a_rank_that_goes_is_named() {
    for round in [HANDSHAKE, FORWARD, FORWARD + 1, BACKWARD, BACKWARD + 2] {
        let errors = errors(run(Wrong::Gone, round));
        assert!(matches!(&errors[1], Some(Error::Broken { .. })), "{errors:?}");
        for rank in [0, 2] {
            // The rank itself, or the one that ended because of it.
            assert!(matches!(&errors[rank], Some(Error::Gone { .. })), "round {round}: {errors:?}");
        }
        assert!(errors.iter().flatten().any(|error| matches!(error, Error::Gone { rank: 1, .. })));
    }
}

#[test]
fn a_wrong_message_is_an_error() {
    for wrong in [Wrong::Short, Wrong::Header] {
        for round in SENDING {
            let errors = errors(run(wrong, round));
            let refused = |error: &Option<Error>| matches!(error, Some(Error::Message { rank: 1, .. }));
            assert!(errors.iter().any(refused), "{wrong:?}, round {round}: {errors:?}");
        }
    }
}

#[test]
fn a_request_for_foreign_keys_is_an_error() {
    let errors = errors(run(Wrong::Request, HANDSHAKE + 2));
    let refused = |error: &Option<Error>| match error {
        Some(Error::Message { rank: 1, got, .. }) => got.contains("a request for"),
        _ => false,
    };
    assert!(errors.iter().any(refused), "{errors:?}");
}

#[test]
fn a_late_message_is_as_good_as_one_in_time() {
    let on_time = run(Wrong::Nothing, 0);
    for round in [FORWARD, BACKWARD + 1] {
        let late = run(Wrong::Late(LIMIT / 4), round);
        for (a, b) in on_time.iter().zip(&late) {
            let (a, b) = (a.as_ref().expect("on time"), b.as_ref().expect("in time"));
            assert!(a.forward == b.forward && a.gradients == b.gradients);
        }
    }
    let errors = errors(run(Wrong::Late(3 * LIMIT), FORWARD));
    assert!(errors.iter().any(|error| matches!(error, Some(Error::Silent { .. }))), "{errors:?}");
}

#[test]
fn after_a_fault_nothing_goes_on() {
    let (problem, gpu) = (problem(), gpu());
    let inputs = problem.inputs::<f32>();
    let of_rank = |inner| Faulty::new(inner, Wrong::Gone, When::Round(FORWARD));
    let exchanges: Vec<_> = Threads::new(1).into_iter().map(of_rank).collect();
    let said = on_ranks(exchanges, |own| {
        let mut attention = DistributedAttention::new(own, gpu, shape(150), &Causal).unwrap();
        let mut forward = || attention.forward(&inputs.q, &inputs.k, &inputs.v).unwrap_err();
        [forward(), forward()]
    });
    let [first, second] = &said[0];
    assert_eq!(*second, Error::Failed(first.to_string()));
}
