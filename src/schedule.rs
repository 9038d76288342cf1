//! How a plan cuts the work of a call into workgroups. Needs no device.

use crate::mask::{Part, Parts};
#[cfg(feature = "gpu")]
use crate::wgsl::MatrixSums;
use crate::wgsl::{Tile, TileLimits};
use crate::{Attention, AttentionShape, ElementType, Error, Result};

/// The cut of a call: the same for every device with these limits.
///
/// ```
/// use wgpu_attention::{AttentionShape, BlockGrid, BlockMask, Full, Schedule, wgsl::TileLimits};
///
/// // One query of 32 heads, which share 8 key heads by fours, over 65,536 keys: decoding.
/// let shape = AttentionShape::new(1, 32, 1, 128).kv_heads(8).kv_len(65536);
/// let mask = BlockMask::new(&Full, BlockGrid::from(&shape))?;
/// let schedule = Schedule::new(&shape, &mask.into(), TileLimits::WEBGPU, None, None)?;
/// assert!(schedule.packed[0] && schedule.splits == 64);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Sizes of a workgroup, of each part.
    pub tiles: Vec<Tile>,
    /// Of each part, whether the queries of all heads that share a key head are the rows of one tile: k and v are then read
    /// once for all of them.
    pub packed: Vec<bool>,
    /// Workgroups that share the keys of one row tile, and merge by (m, l): what keeps a device busy that has few rows. The longest
    /// rows fill all of them, each with as many tiles of keys; of shorter ones the last are empty.
    pub splits: usize,
    /// Bytes of a call's scratch: the state (m, l) of parts and splits, and their f32 rows.
    pub scratch_bytes: [u64; 2],
}

impl Schedule {
    /// Keys that a split has at least: below, its own start and end cost more than it saves.
    const LEAST_KEYS: u64 = 256;
    /// Splits at most: their merge is one loop of one lane.
    const MOST_SPLITS: u64 = 64;

    /// Cuts; a forced tile or number of splits replaces the chosen one.
    ///
    /// # Errors
    /// As [`Tile::choose`]; [`Error::Argument`] for relative rows that do not have every distance that is kept.
    pub fn new(
        attention: impl Into<Attention>,
        parts: &Parts,
        limits: TileLimits,
        tile: Option<Tile>,
        splits: Option<usize>,
    ) -> Result<Self> {
        let attention = attention.into();
        check_distances(&attention, parts)?;
        let shape = &attention.shape;
        let packed: Vec<_> = parts.parts().iter().map(|part| packs(&attention, part)).collect();
        let choose = |(part, packed): (&Part, &bool)| {
            let grid = part.mask.grid();
            let rows = rows_of(shape, part, *packed).next_power_of_two().max(limits.kind.least_rows());
            let rows = rows.min(grid.block_q);
            let chosen = || Tile::choose(shape.head_dim, shape.value_dim, rows, grid.block_k, limits);
            tile.map_or_else(chosen, Ok)
        };
        let tiles = parts.parts().iter().zip(&packed).map(choose).collect::<Result<Vec<_>>>()?;

        let wanted = |((part, packed), tile): ((&Part, &bool), &Tile)| {
            let items = items(&attention, part, *packed, tile) as u64;
            let target: u64 = match tile {
                // Several for each core.
                Tile::Direct(_) => 16,
                // Some for each of the hundred and more compute units of a large GPU.
                Tile::Staged(_) | Tile::Cooperative(_) => 512,
            };
            let most = heaviest_tiles(part, tile) * tile.keys() as u64 / Self::LEAST_KEYS;
            target.div_ceil(u64::max(items, 1)).min(most).clamp(1, Self::MOST_SPLITS) as usize
        };
        let each = parts.parts().iter().zip(&packed).zip(&tiles);
        // All rows have as many splits: a part of few rows beside one of many stays whole.
        let splits = splits.unwrap_or_else(|| each.map(wanted).min().unwrap_or(1));
        let scratch_bytes = scratch_bytes(&attention, parts.parts().len() > 1, splits);
        Ok(Self { tiles, packed, splits, scratch_bytes })
    }

    /// With the sums of tiles of cooperative matrices elsewhere.
    #[cfg(feature = "gpu")]
    pub(crate) fn matrix_sums(mut self, sums: MatrixSums) -> Self {
        self.tiles.iter_mut().for_each(|tile| *tile = tile.matrix_sums(sums));
        self
    }
}

/// Each pair that is kept needs a row of its distance, where the score has relative rows.
fn check_distances(attention: &Attention, parts: &Parts) -> Result<()> {
    let Some([lowest, highest]) = attention.score.relative().and_then(|relative| relative.distances()) else {
        return Ok(());
    };
    match parts.distances() {
        Some([low, high]) if low < lowest || high > highest => {
            let need = format!("rows of the distances {low} to {high}, which the pattern keeps, or `clip`");
            Err(Error::argument("relative", need, format!("rows of {lowest} to {highest}")))
        }
        _ => Ok(()),
    }
}

/// Rows of a part for one head, or one group of packed heads.
pub(crate) fn rows_of(shape: &AttentionShape, part: &Part, packed: bool) -> usize {
    part.mask.grid().q_len * if packed { shape.heads / shape.kv_heads } else { 1 }
}

/// Work items of a part, before the keys are split.
pub(crate) fn items(attention: &Attention, part: &Part, packed: bool, tile: &Tile) -> usize {
    let shape = &attention.shape;
    let heads = if packed { shape.kv_heads } else { attention.computed_heads() };
    rows_of(shape, part, packed).div_ceil(tile.rows()) * heads * shape.batch
}

/// Bytes of a call's state (m, l) and of its f32 rows, each once per split.
pub(crate) fn scratch_bytes(attention: &Attention, several_parts: bool, splits: usize) -> [u64; 2] {
    let shape = &attention.shape;
    if !several_parts && splits == 1 {
        return [0, 0];
    }
    let rows = (shape.len_lse() * splits) as u64;
    let in_place = splits == 1 && attention.storage.out == ElementType::F32;
    [8 * rows, if in_place { 0 } else { rows * 16 * shape.value_dim.div_ceil(4) as u64 }]
}

/// Tiles of keys that the longest row tile visits.
fn heaviest_tiles(part: &Part, tile: &Tile) -> u64 {
    let most = blocks_of_rows(part).flatten().max().unwrap_or(0);
    most * part.mask.grid().block_k.div_ceil(tile.keys()) as u64
}

/// Tiles of keys of each split, in the order of the walk. The longest rows fill all splits; shorter ones leave the last ones
/// empty, instead of being cut as fine.
#[cfg(feature = "gpu")]
pub(crate) fn tiles_per_split(part: &Part, tile: &Tile, splits: usize) -> u64 {
    heaviest_tiles(part, tile).div_ceil(splits as u64).max(1)
}

/// Of each head whose mask is another: the blocks that each row of blocks visits.
pub(crate) fn blocks_of_rows(part: &Part) -> impl Iterator<Item = impl Iterator<Item = u64> + '_> + '_ {
    let (mask, grid) = (&part.mask, part.mask.grid());
    let distinct = |stride: usize, count: usize| if stride == 0 { count.min(1) } else { count };
    let batches = distinct(mask.batch_stride(), grid.batch);
    let heads = distinct(mask.head_stride(), grid.heads);
    (0..batches * heads).map(move |n| {
        (0..grid.q_blocks()).map(move |row| {
            let row = mask.row(n / heads, n % heads, row);
            row.full.iter().chain(row.partial).map(|run| u64::from(run.count)).sum()
        })
    })
}

/// Whether the heads that share a key head fill a tile better together: few queries, as they are, under one mask, all of its heads.
fn packs(attention: &Attention, part: &Part) -> bool {
    let shape = &attention.shape;
    let grid = part.mask.grid();
    let one_mask = part.mask.head_stride() == 0 || grid.heads == 1;
    let grouped = shape.heads > shape.kv_heads && attention.heads.chosen().is_none();
    grouped && 2 * grid.q_len <= grid.block_q && part.q_order.is_none() && one_mask
}
