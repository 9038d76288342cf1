//! What a pass over several ranks costs, before there is a machine: messages, bytes, pairs, memory, time.
//!
//! | file | what |
//! |---|---|
//! | `machine.rs` | [`Machine`]: what a rank computes per second, what the network carries |
//! | `counts.rs` | what all ranks meet, and what they send each other |
//! | `common.rs` | the rows that all ranks get |
//! | `meet.rs` | what the queries of a rank meet in the keys of every other, counted from runs |
//! | `time.rs` | rounds of a pass, and how long they take |
//!
//! docs/distributed_scale.md says by what law the cost grows.

mod common;
mod counts;
mod machine;
mod meet;
mod time;

pub use machine::Machine;

use super::{Assignment, Pass};
use crate::mask::{BlockGrid, BlockMask};
use crate::{Attention, AttentionShape, Error, Result};
use counts::Counts;
use rayon::prelude::*;

/// Which keys a rank gets of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Travel {
    /// Those in blocks that any of its queries visits: what [`needs`](super::needs) says.
    Needed,
    /// All that the other holds, needed or not: what a ring hands on.
    Shards,
    /// As `Needed`, but for the rows that [`Sharing`](super::Sharing) lets all ranks get: queries that attend nearly everything travel in place of
    /// the keys, and keys that all ranks ask for are handed on along a tree.
    Shared,
}

/// What a call of attention costs whose rows several ranks hold, rank by rank.
///
/// Counted from the runs of the block mask, stretch by stretch: time and memory grow with the runs and with the square of the number
/// of ranks (8 bytes for each pair of ranks), never with the square of the length.
///
/// ```
/// use wgpu_attention::ranks::{Assignment, Cost, Machine, Pass, Travel};
/// use wgpu_attention::{AttentionShape, BlockGrid, BlockMask, Causal, ElementType, Storage};
///
/// let call = AttentionShape::new(1, 8, 1 << 20, 128).storage(Storage::all(ElementType::F16));
/// let mask = BlockMask::new(&Causal, BlockGrid::from(&call.shape))?;
/// // 100 TFLOP/s per rank; 100 GB/s and 2 us between any two.
/// let machine = Machine::new(100e12, 100e9, 2e-6);
/// let zig_zag = Assignment::zig_zag(1 << 20, 64, 64)?;
/// let cost = Cost::new(call.clone(), &mask, [&zig_zag; 2], Travel::Needed, machine)?;
/// assert!(cost.efficiency(Pass::Forward) > 0.95);
/// // One rank after another: the first has little to do, and waits for the last.
/// let contiguous = Assignment::contiguous(1 << 20, 64, 64)?;
/// let cost = Cost::new(call, &mask, [&contiguous; 2], Travel::Needed, machine)?;
/// assert!(cost.efficiency(Pass::Forward) < 0.51);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// What each rank has to do.
    pub ranks: Vec<RankCost>,
}

/// What one rank has to do.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RankCost {
    /// Queries that it holds.
    pub queries: usize,
    /// Keys that it holds.
    pub keys: usize,
    /// Attended pairs that it computes, over all batch items and heads: those of its queries; with [`Travel::Shared`], of a query that travels
    /// those with its own keys.
    pub kept: u64,
    /// Pairs of the blocks that it computes.
    pub visited: u64,
    /// The forward pass.
    pub forward: PassCost,
    /// The backward pass.
    pub backward: PassCost,
}

/// What one pass takes of one rank.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct PassCost {
    /// Messages to others.
    pub sent_messages: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages from others.
    pub received_messages: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Steps in which it computes.
    pub steps: usize,
    /// The longest round, in seconds: a step's arithmetic, while the next one's keys travel.
    pub longest_round_s: f64,
    /// Its arithmetic alone, in seconds.
    pub compute_s: f64,
    /// Until its last result is complete, in seconds.
    pub time_s: f64,
    /// Tensors that it holds, results and messages in flight among them.
    pub memory_bytes: u64,
}

impl RankCost {
    /// What a pass takes.
    pub fn pass(&self, pass: Pass) -> &PassCost {
        match pass {
            Pass::Forward => &self.forward,
            Pass::Backward => &self.backward,
        }
    }
}

impl Cost {
    /// Ranks at most: above, a table with an entry for each two of them grows large.
    pub const MOST_RANKS: usize = 16384;

    /// Bytes before the content of each message: the number of the call, the step and the pass.
    pub const HEADER_BYTES: u64 = 16;

    /// Counts. `rows`: who holds which queries, and which keys; the mask's blocks must not be cut by them. Of `attention`, the
    /// lengths must be those of the mask; offsets in the whole tensors may pass 2^32, since no rank holds them whole.
    ///
    /// # Errors
    /// [`Error::Argument`] for assignments that do not fit the mask's lengths, each other, or its blocks, for a shape that is not
    /// the mask's or wrong by itself, and for a machine that does nothing; [`Error::Limit`] for more than
    /// [`MOST_RANKS`](Self::MOST_RANKS) ranks.
    pub fn new(
        attention: impl Into<Attention>,
        mask: &BlockMask,
        rows: [&Assignment; 2],
        travel: Travel,
        machine: Machine,
    ) -> Result<Self> {
        let attention = attention.into();
        machine.check()?;
        check_shape(&attention, mask.grid())?;
        check_rows(rows, mask.grid())?;
        let counts = Counts::new(&attention, mask, rows, travel);
        let slowest = [Pass::Forward, Pass::Backward].map(|pass| counts.tree_s(&attention, pass, &machine));
        let cost = |rank: usize| counts.rank(rank, &attention, slowest, &machine);
        Ok(Self { ranks: (0..counts.ranks).into_par_iter().map(cost).collect() })
    }

    /// Attended pairs of all ranks: those of the mask.
    pub fn kept(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.kept).sum()
    }

    /// Pairs of the blocks that all ranks compute: those of the mask.
    pub fn visited(&self) -> u64 {
        self.ranks.iter().map(|rank| rank.visited).sum()
    }

    /// Seconds until the slowest rank is done.
    pub fn time_s(&self, pass: Pass) -> f64 {
        self.ranks.iter().map(|rank| rank.pass(pass).time_s).fold(0.0, f64::max)
    }

    /// The arithmetic of all, divided by the number of ranks, in proportion to the time of the slowest: 1 where no rank ever waits.
    /// 1 where there is nothing to do.
    pub fn efficiency(&self, pass: Pass) -> f64 {
        let compute: f64 = self.ranks.iter().map(|rank| rank.pass(pass).compute_s).sum();
        match self.time_s(pass) {
            0.0 => 1.0,
            time => compute / self.ranks.len() as f64 / time,
        }
    }

    /// The most pairs that a rank computes, in proportion to the mean: 1 is a perfect balance, also where there are none.
    pub fn imbalance(&self) -> f64 {
        let most = self.ranks.iter().map(|rank| rank.visited).max().unwrap_or(0);
        if most == 0 { 1.0 } else { most as f64 * self.ranks.len() as f64 / self.visited() as f64 }
    }
}

fn check_shape(attention: &Attention, grid: &BlockGrid) -> Result<()> {
    attention.shape.check()?;
    attention.score.check(&attention.shape)?;
    let AttentionShape { batch, heads, q_len, kv_len, .. } = attention.shape;
    let sizes = [
        ("batch", batch, grid.batch),
        ("heads", heads, grid.heads),
        ("q_len", q_len, grid.q_len),
        ("kv_len", kv_len, grid.kv_len),
    ];
    match sizes.into_iter().find(|(_, got, need)| got != need) {
        Some((name, got, need)) => Err(Error::argument(name, format!("{need}, as in the mask"), got)),
        None => Ok(()),
    }
}

fn check_rows([queries, keys]: [&Assignment; 2], grid: &BlockGrid) -> Result<()> {
    let sides = [("queries", queries, grid.q_len, grid.block_q), ("keys", keys, grid.kv_len, grid.block_k)];
    for (name, rows, len, block) in sides {
        if rows.len() != len {
            return Err(Error::argument(name, format!("an assignment of {len} rows"), rows.len()));
        }
        let mut stretches = (0..rows.ranks()).flat_map(|rank| rows.rows(rank));
        if let Some(cut) = stretches.find(|stretch| !stretch.start.is_multiple_of(block)) {
            let need = format!("stretches of whole blocks of {block} rows");
            return Err(Error::argument(name, need, format!("one from row {} on", cut.start)));
        }
    }
    if queries.ranks() != keys.ranks() {
        return Err(Error::argument("keys", format!("{} ranks, as queries", queries.ranks()), keys.ranks()));
    }
    match queries.ranks() {
        ranks if ranks > Cost::MOST_RANKS => {
            Err(Error::limit("ranks", "Cost::MOST_RANKS", ranks as u64, Cost::MOST_RANKS as u64))
        }
        _ => Ok(()),
    }
}
