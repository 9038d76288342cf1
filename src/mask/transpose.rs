//! The mask with queries and keys exchanged: the backward pass walks it.

use super::build::Builder;
use super::{BlockGrid, BlockMask, Part, Parts, Run, RunKind};
use crate::{Extent, Full, Not, Result, Varies};
use std::collections::HashMap;

impl BlockMask {
    /// Key block -> query blocks: `transpose()?.keeps(b, h, j, i) == keeps(b, h, i, j)`, with the grid's q and k
    /// exchanged. Takes time proportional to the runs of both. Transposing twice gives an equal mask. Of a mask without
    /// queries all rows are empty.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) where the packed mask passes 2^32 words.
    pub fn transpose(&self) -> Result<Self> {
        let from = self.grid();
        let grid = from.transpose();
        grid.check()?;
        let varies = Varies { batch: self.batch_stride() > 0, heads: self.head_stride() > 0 };
        let mut turned = Turned { mask: self, builder: Builder::new(grid, varies)?, made: HashMap::new() };
        for site in 0..self.stored_sites().count() {
            let mut sweep = Sweep::new(from.k_blocks());
            for q_block in 0..from.q_blocks() {
                sweep.row(q_block as u32, turned.row(site * from.q_blocks() + q_block, q_block)?);
            }
            sweep.row(from.q_blocks() as u32, Vec::new());
            for column in sweep.columns {
                column.into_iter().for_each(|run| turned.builder.push(run));
                turned.builder.end_row()?;
            }
        }
        turned.builder.renumber()?;
        turned.builder.finish()
    }
}

impl Parts {
    /// Key -> queries, for a backward pass over keys: `transpose()?.keeps(b, h, j, i) == keeps(b, h, i, j)`.
    ///
    /// Each part is transposed by itself, its bit tiles, too: its [`BlockMask::transpose`], with `q_order` and `k_order` in
    /// each other's place. What follows "query" in this crate is then a key, and the other way round: the extent's `q_len` is
    /// Lk. The first part has to cover every row, now every key: a part that does so comes first, the others keep
    /// their order, and where none does, an empty part in natural order is put before them.
    ///
    /// # Errors
    /// As [`BlockMask::transpose`]; [`Error::Argument`](crate::Error::Argument) for a part whose `k_order` has a key twice,
    /// which is valid forward but would be one row of the result twice.
    pub fn transpose(&self) -> Result<Self> {
        let Extent { q_len, kv_len, .. } = *self.extent();
        let extent = Extent { q_len: kv_len, kv_len: q_len, ..*self.extent() };
        let turn = |part: &Part| {
            let mask = part.mask.transpose()?;
            Ok(Part { mask, q_order: part.k_order.clone(), k_order: part.q_order.clone() })
        };
        let mut parts = self.parts().iter().map(turn).collect::<Result<Vec<Part>>>()?;
        for (index, part) in parts.iter().enumerate() {
            part.check_rows(format!("parts[{index}].k_order"), "key", kv_len)?;
        }
        let covers = |part: &Part| part.q_order.as_ref().is_none_or(|order| order.len() == kv_len);
        match parts.iter().position(covers) {
            Some(at) => parts[..=at].rotate_right(1),
            None => {
                let grid = parts.first().map_or(BlockGrid::new(kv_len, q_len), |part| *part.mask.grid());
                let mask = BlockMask::new(&Not(Full), BlockGrid { q_len: kv_len, kv_len: q_len, ..grid })?;
                parts.insert(0, Part { mask, q_order: None, k_order: None });
            }
        }
        Self::new(parts, extent)
    }
}

/// The transposed tile of each kind of block.
struct Turned<'a> {
    mask: &'a BlockMask,
    builder: Builder,
    /// By kind and by the block's queries and keys: in a short block the sides' padding changes its meaning.
    made: HashMap<(RunKind, usize, usize), Option<RunKind>>,
}

impl Turned<'_> {
    /// The runs of a row, full and partial mixed, ascending, with transposed kinds.
    fn row(&mut self, index: usize, q_block: usize) -> Result<Vec<Run>> {
        let grid = self.mask.grid();
        let row = self.mask.stored_row(index);
        let mut runs = Vec::new();
        for run in row.full.iter().chain(row.partial) {
            // A short last key block stands for itself.
            let last = run.first + run.count - 1;
            let whole =
                if grid.keys(last as usize).len() == grid.block_k { run.count } else { run.count - 1 };
            for (first, count) in [(run.first, whole), (last, run.count - whole)] {
                if count == 0 {
                    continue;
                }
                if let Some(kind) = self.kind(run.kind, q_block, first as usize)? {
                    runs.push(Run { first, count, kind });
                }
            }
        }
        runs.sort_unstable_by_key(|run| run.first);
        Ok(runs)
    }

    fn kind(&mut self, kind: RunKind, q_block: usize, k_block: usize) -> Result<Option<RunKind>> {
        let grid = self.mask.grid();
        let (queries, keys) = (grid.queries(q_block).len(), grid.keys(k_block).len());
        if let Some(made) = self.made.get(&(kind, queries, keys)) {
            return Ok(*made);
        }
        let bit = |i: usize, j: usize| match kind {
            RunKind::Full => 1,
            RunKind::Tile(tile) => self.mask.tile(tile)[i * grid.row_words() + j / 32] >> (j % 32) & 1,
        };
        let words = grid.transpose().row_words();
        let mut tile = vec![0; keys * words];
        for j in 0..keys {
            for i in 0..queries {
                tile[j * words + i / 32] |= bit(i, j) << (i % 32);
            }
        }
        let made = self.builder.kind(k_block, q_block, &mut tile)?;
        self.made.insert((kind, queries, keys), made);
        Ok(made)
    }
}

/// Follows each key block from one block of queries to the next, and writes a run when it changes.
struct Sweep {
    /// The row before.
    row: Vec<Run>,
    /// For each key block in use, since which block of queries it has been what it is.
    since: Vec<u32>,
    columns: Vec<Vec<Run>>,
}

impl Sweep {
    fn new(k_blocks: usize) -> Self {
        Self { row: Vec::new(), since: vec![0; k_blocks], columns: vec![Vec::new(); k_blocks] }
    }

    fn row(&mut self, q_block: u32, row: Vec<Run>) {
        let mut bounds: Vec<u32> =
            self.row.iter().chain(&row).flat_map(|run| [run.first, run.first + run.count]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let (mut before, mut after) = (Walk(&self.row), Walk(&row));
        for bound in bounds.windows(2) {
            let (was, is) = (before.kind_at(bound[0]), after.kind_at(bound[0]));
            if was == is {
                continue;
            }
            for k_block in bound[0] as usize..bound[1] as usize {
                if let Some(kind) = was {
                    let first = self.since[k_block];
                    self.columns[k_block].push(Run { first, count: q_block - first, kind });
                }
                self.since[k_block] = q_block;
            }
        }
        self.row = row;
    }
}

/// Ascending runs that are left to walk.
struct Walk<'a>(&'a [Run]);

impl Walk<'_> {
    fn kind_at(&mut self, block: u32) -> Option<RunKind> {
        while self.0.first().is_some_and(|run| run.first + run.count <= block) {
            self.0 = &self.0[1..];
        }
        self.0.first().filter(|run| run.first <= block).map(|run| run.kind)
    }
}
