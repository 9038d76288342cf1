//! How the rows of a few ranks get to all, and how what is computed for them comes back.

use std::ops::Range;

/// A round in which each rank hands on what it has of others' rows: to the rank 2^t after it, from the one 2^t before it.
///
/// After rounds 0 to t a rank has what the 2^(t + 1) - 1 ranks before it gave, so ceil(log2 R) rounds are enough (Bruck et al. 1997);
/// the rows of one owner take a binomial tree on their way, in which each rank gets them once. Results for the owners go the same
/// way back, from the last round to the first: each rank adds what comes to what it has, and the owner has the sum.
///
/// ```
/// use wgpu_attention::ranks::HandOn;
/// // Of 6 ranks, the rows of rank 5: to rank 0; to 1 and 2; to 3 and 4.
/// let gets = |rank: usize| HandOn::rounds(rank, 6).position(|round| round.received(6).any(|owner| owner == 5));
/// assert_eq!([0, 1, 2, 3, 4, 5].map(gets), [Some(0), Some(1), Some(1), Some(2), Some(2), None]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandOn {
    /// The round.
    pub round: usize,
    /// The rank that gets rows of this one; in the way back, the one whose results come.
    pub to: usize,
    /// The rank that rows come from; in the way back, the one that gets results.
    pub from: usize,
    rank: usize,
    /// By how many ranks the owners lie before this rank whose rows it sends.
    sent: Range<usize>,
    received: Range<usize>,
}

impl HandOn {
    /// The rounds of a rank, in the order in which rows travel.
    pub fn rounds(rank: usize, ranks: usize) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..Self::count(ranks)).map(move |round| {
            let reach = 1 << round;
            Self {
                round,
                to: (rank + reach) % ranks,
                from: (rank + ranks - reach) % ranks,
                rank,
                sent: 0..reach.min(ranks - reach),
                received: reach..(2 * reach).min(ranks),
            }
        })
    }

    /// How many rounds there are: the logarithm of the ranks to base 2, rounded up.
    pub fn count(ranks: usize) -> usize {
        ranks.max(1).next_power_of_two().trailing_zeros() as usize
    }

    /// The owners whose rows are handed on, in their order in the message: this rank, if it is one, first.
    pub fn sent(&self, ranks: usize) -> impl Iterator<Item = usize> + use<> {
        owners(self.rank, self.sent.clone(), ranks)
    }

    /// The owners whose rows come: those that the sender sends, in its order.
    pub fn received(&self, ranks: usize) -> impl Iterator<Item = usize> + use<> {
        owners(self.rank, self.received.clone(), ranks)
    }
}

fn owners(rank: usize, before: Range<usize>, ranks: usize) -> impl Iterator<Item = usize> {
    before.map(move |before| (rank + ranks - before) % ranks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each rank gets each other one's rows once, from a rank that has them; and what goes back reaches the owner once.
    #[test]
    fn rows_reach_each_rank_once_and_results_their_owner() {
        for ranks in 1..40 {
            let all: Vec<Vec<_>> = (0..ranks).map(|rank| HandOn::rounds(rank, ranks).collect()).collect();
            // Of each round, that of every rank.
            let of_all = |round: usize| all.iter().map(|own| &own[round]).collect::<Vec<_>>();
            let rounds: Vec<_> = (0..HandOn::count(ranks)).map(of_all).collect();
            let mut has: Vec<Vec<usize>> = (0..ranks).map(|rank| vec![rank]).collect();
            for round in &rounds {
                let before = has.clone();
                for rank in 0..ranks {
                    let it = round[rank];
                    let (came, sent): (Vec<_>, Vec<_>) =
                        (it.received(ranks).collect(), round[it.from].sent(ranks).collect());
                    assert_eq!((&came, round[it.from].to), (&sent, rank), "{ranks} ranks");
                    assert!(came.iter().all(|owner| before[it.from].contains(owner)));
                    assert!(came.iter().all(|owner| !has[rank].contains(owner)));
                    has[rank].extend(came);
                }
            }
            assert!(has.iter().all(|has| has.len() == ranks));
            // Backwards: one share per rank and owner.
            let mut sums = vec![vec![1; ranks]; ranks];
            for round in rounds.iter().rev() {
                for rank in 0..ranks {
                    let it = round[rank];
                    for owner in it.received(ranks) {
                        sums[it.from][owner] += std::mem::take(&mut sums[rank][owner]);
                    }
                }
            }
            assert!((0..ranks).all(|owner| sums[owner][owner] == ranks), "{ranks} ranks");
        }
    }
}
