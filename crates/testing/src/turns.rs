//! How much of what could be tested a run takes: which kinds of tile for a case, how many cases of a property, which of a list's.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use wgpu_attention::wgsl::TileKind;

/// The variable that asks for a long run; `cargo xtask test --long` sets it.
const LONG: &str = "WGPU_ATTENTION_LONG";

/// Of this run.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Whether nothing is left to the next run: before a release, and after a change of what both kinds of tile share.
pub fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// How many cases of a property are drawn, each run others: as many as `PROPTEST_CASES` says, where something does
/// (`cargo xtask test --quick` and `--long` do), else these.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

/// Combinations of so many values of each axis, by their numbers: all of them in a long run. In others as many as the first axis has
/// values: each of those once, beside values of the other axes that are dealt to them, drawn anew in each run, each as often as any other.
/// What a pipeline is compiled for is many things that have little to do with each other, and the pairs that nobody thought of are met by
/// one run or another.
pub fn combinations<const N: usize>(values: [usize; N]) -> Vec<[usize; N]> {
    let first = values.first().copied().unwrap_or(0);
    if long() {
        let product = values.iter().product();
        let digits = |mut n: usize| {
            values.map(|values| {
                let digit = n % values;
                n /= values;
                digit
            })
        };
        return (0..product).map(digits).collect();
    }
    let mut dealt: [Vec<usize>; N] = values.map(|values| deal(first, values));
    dealt.first_mut().into_iter().for_each(|axis| *axis = (0..first).collect());
    (0..first).map(|n| dealt.each_ref().map(|axis| axis[n])).collect()
}

/// Of so many places one in a few, drawn anew in each run; all of them in a long run.
pub fn one_in(few: usize, places: usize) -> Vec<usize> {
    let turns = deal(places, few);
    (0..places).filter(|&n| long() || places < few || turns[n] == 0).collect()
}

/// As many numbers below `values`, each as often as any other, or once less, in an order of the moment.
fn deal(many: usize, values: usize) -> Vec<usize> {
    let begin = drawn(values);
    let mut deck: Vec<_> = (0..many).map(|n| (begin + n) % values).collect();
    (1..many).for_each(|n| deck.swap(n, drawn(n + 1)));
    deck
}

/// A number below another, from the seed of this run.
fn drawn(below: usize) -> usize {
    static DRAWN: AtomicUsize = AtomicUsize::new(0);
    let bits = SEED.hash_one(DRAWN.fetch_add(1, Ordering::Relaxed));
    (bits % below.max(1) as u64) as usize
}

/// The kinds of tile for one more case. Each is a pipeline of its own, and compiling is what tests wait for: so a run takes one of them
/// for all cases `of` the same name, which are those that share a pipeline, and for each case without one; the next run may take the
/// other. A failure names the case with its tile, and needs no seed to come again.
pub fn kinds_of_tile(of: Option<&str>) -> Vec<TileKind> {
    let both = [TileKind::Staged, TileKind::Direct];
    if long() {
        return both.to_vec();
    }
    vec![both[of.map_or_else(|| drawn(2), |of| (SEED.hash_one(of) & 1) as usize)]]
}
