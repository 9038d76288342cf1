//! Which rows a check looks at: the reference costs O(Lk (d + dv)) per row.

use crate::AttentionShape;
use crate::Counter;
use crate::Position;
use std::collections::BTreeSet;

/// Rows of the output to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// [`Rows::auto`] of the call's shape.
    #[default]
    Auto,
    /// Every row of every head.
    All,
    /// `count` rows over all heads and batch items (all, if there are no more): the first and the last query and
    /// those at block edges (multiples of 16, and so of 32 and 64, with their neighbours), in the first and last
    /// head of the first and last batch item; then any, at random.
    Sample {
        /// How many rows.
        count: usize,
        /// Seed of the choice.
        seed: u64,
    },
}

impl Rows {
    /// All rows where there are at most 2,048 keys and B H Lq Lk (d + dv) is at most 2^30 (a few seconds on a desktop); otherwise 64
    /// rows.
    pub fn auto(shape: &AttentionShape) -> Self {
        let work = [shape.batch, shape.heads, shape.q_len, shape.kv_len, shape.head_dim + shape.value_dim];
        let work: u128 = work.iter().map(|&x| x as u128).product();
        if shape.kv_len <= 2048 && work <= 1 << 30 { Self::All } else { Self::Sample { count: 64, seed: 0 } }
    }

    /// The rows, ascending.
    pub fn positions(self, shape: &AttentionShape) -> Vec<Position> {
        let total = shape.len_lse();
        match self {
            Self::Auto => Self::auto(shape).positions(shape),
            Self::Sample { count, seed } if count < total => sample(shape, count, seed),
            Self::All | Self::Sample { .. } => (0..total).map(|n| Position::of_row(shape, n)).collect(),
        }
    }
}

/// `count` of the rows, of which there are more.
fn sample(shape: &AttentionShape, count: usize, seed: u64) -> Vec<Position> {
    let draw = Counter::new(seed, 0);
    let mut draws = 0..;
    let mut below = |size: usize| (draw.bits(draws.next().unwrap_or(0)) % size.max(1) as u64) as usize;

    let corner_batches = BTreeSet::from([0, shape.batch - 1]);
    let corner_heads = BTreeSet::from([0, shape.heads - 1]);
    let corners: Vec<_> = corner_batches
        .iter()
        .flat_map(|&batch| corner_heads.iter().map(move |&head| (batch, head)))
        .collect();
    let ends = BTreeSet::from([0, shape.q_len - 1]);
    let edges: Vec<usize> = (16..shape.q_len + 1)
        .step_by(16)
        .flat_map(|edge| [edge - 1, edge, edge + 1])
        .filter(|&i| i < shape.q_len)
        .collect();

    let mut rows: BTreeSet<Position> = corners
        .iter()
        .flat_map(|&(batch, head)| ends.iter().map(move |&i| Position { batch, head, i }))
        .take(count)
        .collect();
    // Half of what is left goes to block edges, the rest anywhere. The draws are bounded: a set may be smaller than
    // its share.
    let at_edges = if edges.is_empty() { rows.len() } else { rows.len() + (count - rows.len()) / 2 };
    for _ in 0..8 * count {
        if rows.len() >= at_edges {
            break;
        }
        let (batch, head) = corners[below(corners.len())];
        rows.insert(Position { batch, head, i: edges[below(edges.len())] });
    }
    for _ in 0..64 * count {
        if rows.len() >= count {
            break;
        }
        rows.insert(Position { batch: below(shape.batch), head: below(shape.heads), i: below(shape.q_len) });
    }
    rows.into_iter().collect()
}
