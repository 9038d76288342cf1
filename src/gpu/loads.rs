//! How much the workgroups of a dispatch do, so that none runs for long and none is cut without need.

use crate::mask::Part;
use crate::schedule::{blocks_of_rows, tiles_per_split};
use crate::wgsl::Tile;
use std::collections::BTreeMap;

/// What the workgroups of one head do, head after head: floating-point operations of one, and how many do as many; the heaviest
/// first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loads(Vec<(f64, u64)>);

/// All workgroups do as much.
impl From<f64> for Loads {
    fn from(flops: f64) -> Self {
        Self(vec![(flops, u64::MAX)])
    }
}

impl Loads {
    /// The row tiles of a part, whose keys so many workgroups share; `flops` of pairs.
    pub(crate) fn of_part(part: &Part, tile: &Tile, splits: usize, flops: impl Fn(u64) -> f64) -> Self {
        let grid = part.mask.grid();
        let tiles_per_block = grid.block_k.div_ceil(tile.keys()) as u64;
        let pairs_per_tile = (tile.rows() * tile.keys()) as u64;
        let row_tiles = grid.block_q.div_ceil(tile.rows()) as u64;
        let most = tiles_per_split(part, tile, splits);
        let mut workgroups: BTreeMap<u64, u64> = BTreeMap::new();
        for blocks in heaviest_rows(part) {
            let tiles = blocks * tiles_per_block;
            for split in 0..splits as u64 {
                // One without any begins and ends its rows all the same.
                let own = tiles.saturating_sub(split * most).clamp(1, most);
                *workgroups.entry(own).or_default() += row_tiles;
            }
        }
        let heaviest_first = workgroups.into_iter().rev();
        Self(heaviest_first.map(|(tiles, count)| (flops(tiles * pairs_per_tile), count)).collect())
    }

    /// How many workgroups in a row, wherever they begin, do no more than that; at least one.
    pub(crate) fn within(&self, flops: f64) -> u32 {
        let of_head: f64 = self.0.iter().map(|(each, count)| each * *count as f64).sum();
        let count: u64 = self.0.iter().map(|(_, count)| count).sum();
        // As many as a head has are one of each, wherever they begin; of fewer, take the heaviest.
        let heads = if of_head > 0.0 { (flops / of_head).floor() } else { f64::INFINITY };
        let mut workgroups = (heads as u64).saturating_mul(count);
        let mut left = flops - heads * of_head;
        for &(each, count) in &self.0 {
            let fit = ((left / each.max(1.0)) as u64).min(count);
            workgroups = workgroups.saturating_add(fit);
            if fit < count {
                break;
            }
            left -= each * count as f64;
        }
        workgroups.clamp(1, u32::MAX.into()) as u32
    }
}

/// Blocks that the rows of blocks of a head visit, the most first. Where heads differ, no head has more at any place.
fn heaviest_rows(part: &Part) -> Vec<u64> {
    let mut most = vec![0; part.mask.grid().q_blocks()];
    for head in blocks_of_rows(part) {
        let mut head: Vec<u64> = head.collect();
        head.sort_unstable_by(|a, b| b.cmp(a));
        most.iter_mut().zip(head).for_each(|(most, blocks)| *most = blocks.max(*most));
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, BigBird, BlockGrid, Parts};

    #[test]
    fn the_heaviest_count_first() {
        let loads = Loads(vec![(100.0, 2), (10.0, 5), (1.0, 1000)]);
        // A head's 1,007 in a row do 1,250.
        let inside = [(0.0, 1), (150.0, 1), (200.0, 2), (229.0, 4), (250.0, 7), (251.0, 8)];
        let heads = [(1250.0, 1007), (1449.0, 1008), (2500.0, 2014), (1e30, u32::MAX)];
        for (flops, want) in inside.into_iter().chain(heads) {
            assert_eq!(loads.within(flops), want, "{flops}");
        }
        assert_eq!(Loads::from(10.0).within(95.0), 9);
        assert!(Loads(vec![]).within(1.0) >= 1, "no rows at all");
    }

    #[test]
    fn loads_add_up_to_the_visited_pairs() {
        let shape = AttentionShape::new(2, 3, 1024, 64);
        let pattern = BigBird { block: 64, window: 3, global: 1, random: 2, seed: 1 };
        let parts = Parts::lower(&pattern, BlockGrid::from(&shape)).unwrap();
        let tile = crate::Schedule::new(shape, &parts, crate::wgsl::TileLimits::WEBGPU, None, Some(1))
            .unwrap()
            .tiles[0];
        let part = &parts.parts()[0];
        let Loads(loads) = Loads::of_part(part, &tile, 1, |pairs| pairs as f64);
        let pairs: f64 = loads.iter().map(|(pairs, count)| pairs * *count as f64).sum();
        assert_eq!(6.0 * pairs, parts.visited() as f64);
        // The rows of the global block see all keys; others 7 blocks at most.
        assert!(loads.len() > 1 && loads[0].0 >= 2.0 * loads[1].0, "{loads:?}");

        // Cut in two, those rows alone fill both.
        let Loads(halves) = Loads::of_part(part, &tile, 2, |pairs| pairs as f64);
        assert_eq!(halves[0], (loads[0].0 / 2.0, 2 * loads[0].1));
        let tile_pairs = (tile.rows() * tile.keys()) as f64;
        let (idle, count) = halves[halves.len() - 1];
        assert_eq!((idle, count), (tile_pairs, (1024 / tile.rows()) as u64 - loads[0].1));
    }
}
