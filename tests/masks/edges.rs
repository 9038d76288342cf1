//! Edges.

use wgpu_attention::mask::{BlockGrid, BlockMask, RunKind};
use wgpu_attention::{Causal, Full};

#[test]
fn no_queries_and_no_batch_items_give_an_empty_mask() {
    for grid in [BlockGrid::new(0, 5), BlockGrid::new(5, 5).batch(0)] {
        for mask in [BlockMask::new(&Causal, grid), BlockMask::scan(&Causal, grid)] {
            let mask = mask.expect("empty is valid");
            assert_eq!((mask.kept(), mask.visited(), mask.waste()), (0, 0, 1.0));
            assert!(mask.row(0, 0, 0).full.is_empty() && !mask.keeps(0, 0, 0, 0));
            assert_eq!(mask.packed().words, [0, 0]);
            assert_eq!(mask.to_string().lines().count(), if grid.batch == 0 { 1 } else { 2 });
        }
    }
}

#[test]
fn what_is_past_the_grid_is_empty() {
    let mask = BlockMask::new(&Full, BlockGrid::new(64, 64)).expect("it builds");
    assert!(mask.keeps(0, 0, 63, 63));
    for [batch, head, i, j] in [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 64, 0], [0, 0, 0, 64]] {
        assert!(!mask.keeps(batch, head, i, j));
    }
    assert!(mask.row(0, 0, 1).full.is_empty() && mask.tile(0).is_empty());
    assert!(mask.key_order(0, 0, 64).is_empty() && mask.key_order(0, 1, 0).is_empty());
}

/// The kinds of the blocks of one mask, at short last blocks on both sides.
#[test]
fn short_last_blocks() {
    let mask = BlockMask::new(&Full, BlockGrid::new(20, 40).blocks(16, 16)).expect("it builds");
    for q_block in 0..2 {
        let row = mask.row(0, 0, q_block);
        assert_eq!((row.full[0].first, row.full[0].count), (0, 2));
        assert_eq!((row.partial[0].first, row.partial[0].kind), (2, RunKind::Tile(0)));
    }
    // Queries past the last count as attending, keys past it never do; the upper half of the word does not exist.
    assert_eq!(mask.tile(0), [0xff; 16]);
    assert_eq!((mask.kept(), mask.visited()), (20 * 40, 2 * 3 * 256));
    let turned = mask.transpose().expect("there are queries");
    assert_eq!(turned.tiles(), 1);
    assert_eq!(turned.tile(0), [0xf; 16]);
}
