//! Whose turn it is. What would make every run too long, runs have by turns: each draws for itself, so that the next has something else,
//! and a long run has everything. What a run leaves out it lists as not run.

use std::hash::{BuildHasher, RandomState};

/// Why something is not run.
pub(crate) const REASON: &str = "not in this run's turn; --long has it";

/// A number below another.
pub(crate) fn drawn(below: usize) -> usize {
    // Each state has keys of its own.
    let bits = RandomState::new().hash_one(());
    (bits % below.max(1) as u64) as usize
}

/// So many of these places, in their order.
pub(crate) fn some(many: usize, places: usize) -> Vec<usize> {
    let mut all: Vec<_> = (0..places).collect();
    let many = many.min(places);
    (0..many).for_each(|n| all.swap(n, n + drawn(places - n)));
    all.truncate(many);
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_so_many_and_each_has_its_turn() {
        let mut times = [0; 7];
        for _ in 0..300 {
            let some = some(3, 7);
            assert!(some.len() == 3 && some.is_sorted_by(|a, b| a < b), "{some:?}");
            some.into_iter().for_each(|place| times[place] += 1);
        }
        // 900 in all: about 129 each.
        assert!(times.iter().all(|times| (60..200).contains(times)), "{times:?}");
        assert_eq!(some(9, 2), [0, 1]);
        assert_eq!((some(0, 2), some(2, 0)), (vec![], vec![]));
    }
}
