//! Which kinds of tile a case runs under: both in a long run, one that is drawn in others.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use wgpu_attention::wgsl::TileKind;

/// The variable that asks for a long run; `cargo xtask test --long` sets it.
const LONG: &str = "WGPU_ATTENTION_LONG";

/// Whether nothing is left to the next run: before a release, and after a change of what both kinds of tile share.
pub fn long() -> bool {
    std::env::var_os(LONG).is_some()
}

/// The kinds of tile for one more case. Each is a pipeline of its own, and compiling is what tests wait for: so a run takes one of them
/// for each case, and the next run may take the other. A failure names the case with its tile, and needs no seed to come again.
pub fn kinds_of_tile() -> Vec<TileKind> {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static CASES: AtomicUsize = AtomicUsize::new(0);
    let both = [TileKind::Staged, TileKind::Direct];
    if long() {
        return both.to_vec();
    }
    let bits = SEED.hash_one(CASES.fetch_add(1, Ordering::Relaxed));
    vec![both[(bits & 1) as usize]]
}
