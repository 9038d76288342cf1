//! Edges.

use crate::drawn::{AnyOne, boxed};
use wgpu_attention::mask::{BlockGrid, BlockMask, Parts, RunKind};
use wgpu_attention::{
    And, BigBird, BlockLayout, Blocks, Causal, Dilated, Document, First, Fixed, Full, Global, KeyLengths,
    Longformer, Mask, Not, Or, PairPredicate, Permutation, Prefix, Random, Strided, Window,
};

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

/// Without keys each pattern is valid, and each row empty.
#[test]
fn no_keys_give_empty_rows() {
    let grid = BlockGrid::new(70, 0).batch(2).heads(3);
    let layout = || BlockLayout::from_columns(1, &[vec![vec![0]; 9]]).expect("columns ascend");
    let mask = |sizes: [usize; 4]| {
        boxed(Mask::new(sizes, vec![true; sizes.iter().product()]).expect("as many values as the sizes say"))
    };
    let bigbird = BigBird { block: 8, window: 3, global: 1, random: 2, seed: 1 };
    let sinks = Or(And(First { count: 4 }, Causal), Window { before: 9, after: 0 });
    let patterns: Vec<AnyOne> = vec![
        boxed(Full),
        boxed(Causal),
        boxed(Causal::top_left()),
        boxed(Window { before: 3, after: usize::MAX }),
        boxed(Prefix { len: 3 }),
        boxed(First { count: 3 }),
        boxed(Document::new([])),
        boxed(Document::per_batch([vec![], vec![]])),
        boxed(Permutation::new([])),
        boxed(Permutation::per_batch([vec![], vec![]]).query(true)),
        boxed(KeyLengths { lengths: vec![0, 0] }),
        boxed(Blocks { block: 8, layout: layout() }),
        mask([1, 1, 1, 1]),
        mask([2, 3, 70, 1]),
        mask([1, 1, 1, 0]),
        mask([1, 1, 70, 0]),
        boxed(Strided::new(5).expect("valid")),
        boxed(Dilated::new(9, 9, 3).expect("valid")),
        boxed(Fixed::new(5, 2).expect("valid")),
        boxed(Global { tokens: [].into() }),
        boxed(Longformer { window: 8, global: [].into() }),
        boxed(Random { block: 8, count: 2, seed: 1 }),
        boxed(bigbird),
        boxed(bigbird.first_and_last()),
        boxed(bigbird.with_lists(layout())),
        boxed(PairPredicate::new(|i, j| i >= j)),
        boxed(sinks),
        boxed(Not(sinks)),
    ];
    for pattern in patterns {
        let mask = BlockMask::new(&pattern, grid).unwrap_or_else(|error| panic!("{pattern:?}: {error}"));
        assert_eq!(mask, BlockMask::scan(&pattern, grid).expect("as above"), "{pattern:?}");
        let parts = Parts::lower(&pattern, grid).expect("as above");
        for (kept, visited, bytes) in
            [(mask.kept(), mask.visited(), mask.bytes()), (parts.kept(), parts.visited(), parts.bytes())]
        {
            assert_eq!((kept, visited), (0, 0), "{pattern:?}");
            assert!(bytes > 0);
        }
        assert!(parts.note().is_none() && parts.key_order(1, 2, 69).concat().is_empty(), "{pattern:?}");
        assert!((0..2).all(|q_block| mask.row(1, 2, q_block).full.is_empty()));
        assert!(mask.to_string().contains("0 pairs kept") && mask.to_svg("none").contains("0 keys"));
        let turned = parts.transpose().expect("no rows");
        assert_eq!((turned.extent().q_len, turned.kept()), (0, 0), "{pattern:?}");
        assert_eq!(turned.transpose().expect("70 rows again").extent(), parts.extent());
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
