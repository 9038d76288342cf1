//! Bad input.

use wgpu_attention::mask::{BlockGrid, BlockMask, Part, Parts};
use wgpu_attention::{
    And, AttentionShape, BlockLayout, Blocks, Causal, Document, Error, Full, KeyLengths, Mask, Not, Or,
    Pattern, Permutation, Predicate, Result,
};

fn refusal<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error @ (Error::Argument { .. } | Error::Limit { .. })) => error.to_string(),
        Err(error) => format!("another kind: {error}"),
    }
}

#[test]
fn bad_grids() {
    let grid = BlockGrid::new(100, 100);
    let check = |grid| refusal(BlockMask::new(&Full, grid));
    assert_eq!(check(grid.blocks(48, 64)), "block_q: need a power of two from 16 to 256, got 48");
    assert_eq!(check(grid.blocks(64, 8)), "block_k: need a power of two from 16 to 256, got 8");
    assert_eq!(check(grid.blocks(0, 64)), "block_q: need a power of two from 16 to 256, got 0");
    assert_eq!(check(grid.blocks(64, 512)), "block_k: need a power of two from 16 to 256, got 512");
    assert_eq!(check(grid.heads(0)), "heads: need at least 1, got 0");
    let long = 1 << 33;
    assert_eq!(
        check(BlockGrid::new(5, long)),
        "kv_len needs 8589934592, but the largest 32-bit index is 4294967295"
    );
    assert_eq!(
        check(BlockGrid::new(long, 5)),
        "q_len needs 8589934592, but the largest 32-bit index is 4294967295"
    );
    assert_eq!(
        refusal(BlockMask::new(
            &Predicate::new(|_, _, _| true),
            BlockGrid::new(1 << 20, 5).batch(1 << 20).blocks(16, 16)
        )),
        "row table of the block mask needs 137438953474, but the largest 32-bit word index is 4294967295"
    );
}

#[test]
fn bad_parameters() {
    let grid = BlockGrid::new(6, 10).batch(2).heads(3);
    let check = |pattern: &dyn Pattern| refusal(BlockMask::new(pattern, grid));
    assert_eq!(
        check(&KeyLengths { lengths: vec![1, 2, 3] }),
        "KeyLengths.lengths: need 2 lengths, one per batch item, got 3"
    );
    assert_eq!(
        check(&KeyLengths { lengths: vec![10, 11] }),
        "KeyLengths.lengths[1]: need at most kv_len (10), got 11"
    );
    assert_eq!(check(&Document::new([1; 9])), "Document.ids[0]: need 10 ids, one per key, got 9");
    assert_eq!(
        check(&Document::per_batch(vec![vec![0; 10]; 3])),
        "Document.ids: need 1 list or 2, one per batch item, got 3"
    );
    assert_eq!(
        check(&Permutation::new([0, 1])),
        "Permutation.order[0]: need 6 positions, the lesser of q_len and kv_len, got 2"
    );
    assert_eq!(
        check(&Permutation::per_batch(vec![vec![0, 1, 2, 3, 4, 5]; 3])),
        "Permutation.order: need 1 list or 2, one per batch item, got 3"
    );
    for twice in [5, 6, u32::MAX] {
        assert_eq!(
            check(&Permutation::per_batch([vec![0, 1, 2, 3, 4, 5], vec![0, 1, 2, twice, 4, 5]])),
            "Permutation.order[1]: need each position from 0 to 5 once, got a list without 3"
        );
    }
    assert_eq!(
        check(&Permutation::new([5, 4, 3, 2, 1, 0]).given(7)),
        "Permutation.given: need at most 6 positions, got 7"
    );
    let blocks = |block, sizes: [usize; 3]| {
        let cells = vec![true; sizes.iter().product()];
        check(&Blocks { block, layout: BlockLayout::new(sizes, cells).expect("sizes fit") })
    };
    assert_eq!(blocks(0, [1, 2, 3]), "Blocks.block: need at least 1, got 0");
    assert_eq!(blocks(4, [2, 2, 3]), "Blocks.layout: need 1 head or 3, got 2");
    let need = "Blocks.layout: need 2 x 3 blocks of 4 for 6 queries and 10 keys, got";
    assert_eq!(blocks(4, [1, 3, 3]), format!("{need} 3 x 3"));
    assert_eq!(blocks(4, [3, 2, 2]), format!("{need} 2 x 2"));
    assert_eq!(blocks(4, [1, 2, 3]), "accepted");
    assert_eq!(
        check(&Blocks { block: 4, layout: BlockLayout::default() }),
        "Blocks.layout: need a layout, got none"
    );
    let mask =
        |sizes: [usize; 4]| check(&Mask::new(sizes, vec![true; sizes.iter().product()]).expect("sizes fit"));
    assert_eq!(mask([3, 1, 1, 1]), "Mask.sizes: need 1 or batch (2), got 3");
    assert_eq!(mask([2, 2, 1, 1]), "Mask.sizes: need 1 or heads (3), got 2");
    assert_eq!(mask([1, 3, 10, 1]), "Mask.sizes: need 1 or q_len (6), got 10");
    assert_eq!(mask([1, 1, 6, 6]), "Mask.sizes: need 1 or kv_len (10), got 6");
    assert_eq!(mask([2, 3, 6, 10]), "accepted");
    assert_eq!(check(&Mask::default()), "Mask.values: need a tensor, got none");
    // A combination checks what it is made of.
    assert_eq!(check(&Not(And(Causal, Or(Full, Mask::default())))), "Mask.values: need a tensor, got none");
}

#[test]
fn bad_layouts_and_masks() {
    assert_eq!(
        refusal(BlockLayout::new([2, 3, 4], [true; 23])),
        "Blocks.layout: need 2 x 3 x 4 cells, got 23"
    );
    assert_eq!(
        refusal(BlockLayout::new([1, 0, 4], [])),
        "Blocks.layout: need at least one head and one block per side, got 1 x 0 x 4"
    );
    let columns = |heads: &[Vec<Vec<u32>>]| refusal(BlockLayout::from_columns(4, heads));
    assert_eq!(columns(&[vec![vec![0, 3], vec![]]]), "accepted");
    assert_eq!(columns(&[]), "Blocks.layout: need at least one head and one block per side, got 0 x 0 x 4");
    assert_eq!(
        columns(&[vec![vec![0], vec![2, 1]]]),
        "Blocks.layout[0][1]: need ascending columns, each once, got 2 before 1"
    );
    assert_eq!(
        columns(&[vec![vec![1, 1]]]),
        "Blocks.layout[0][0]: need ascending columns, each once, got 1 before 1"
    );
    assert_eq!(columns(&[vec![vec![1, 4]]]), "Blocks.layout[0][0]: need columns below 4, got 4");
    assert_eq!(
        columns(&[vec![vec![1], vec![2]], vec![vec![1]]]),
        "Blocks.layout[1]: need 2 rows, as in head 0, got 1"
    );
    assert_eq!(
        refusal(BlockLayout::from_columns(1 << 32, &[vec![vec![u32::MAX]]])),
        "Blocks.layout needs 4294967296, but the largest 32-bit index of a key block is 4294967295"
    );
    assert_eq!(refusal(Mask::new([1, 1, 2, 3], [true; 5])), "Mask.values: need 1 x 1 x 2 x 3 values, got 5");
    let huge = [usize::MAX, usize::MAX, 2, 2];
    assert_eq!(
        refusal(Mask::new(huge, [])),
        format!("Mask.values: need {0} x {0} x 2 x 2 values, got 0", usize::MAX)
    );
}

#[test]
fn bad_parts() {
    let mask = |q_len, kv_len| BlockMask::new(&Full, BlockGrid::new(q_len, kv_len)).expect("it builds");
    let whole = || Part { mask: mask(8, 9), q_order: None, k_order: None };
    let extent = BlockGrid::new(8, 9).extent();
    let check = |parts| refusal(Parts::new(parts, extent));
    assert_eq!(check(vec![]), "parts: need at least 1, got 0");
    assert_eq!(check(vec![whole()]), "accepted");
    let part = |q_len, kv_len, q_order: Option<&[u32]>, k_order: Option<&[u32]>| {
        let orders = (q_order.map(Into::into), k_order.map(Into::into));
        check(vec![whole(), Part { mask: mask(q_len, kv_len), q_order: orders.0, k_order: orders.1 }])
    };
    assert_eq!(
        check(vec![Part { mask: mask(7, 9), q_order: Some((0..7).collect()), k_order: None }]),
        "parts[0].q_order: need every query (8): the first part writes each row, got 7"
    );
    assert_eq!(part(2, 9, Some(&[1, 7]), None), "accepted");
    assert_eq!(part(2, 9, Some(&[1, 8]), None), "parts[1].q_order: need indices below 8, got 8");
    assert_eq!(
        part(2, 9, Some(&[7, 7]), None),
        "parts[1].q_order: need each query at most once, got 7 twice"
    );
    assert_eq!(part(2, 9, Some(&[7]), None), "parts[1].q_order: need 2 entries, as in the mask, got 1");
    assert_eq!(part(8, 2, None, Some(&[7, 9])), "parts[1].k_order: need indices below 9, got 9");
    assert_eq!(
        part(8, 3, None, None),
        "parts[1].k_order: need an order, or a mask of all 9, got a mask of 3"
    );
    assert_eq!(
        part(7, 9, None, None),
        "parts[1].q_order: need an order, or a mask of all 8, got a mask of 7"
    );
    let heads = BlockMask::new(&Full, BlockGrid::new(8, 9).heads(2)).expect("it builds");
    assert_eq!(
        check(vec![whole(), Part { mask: heads, q_order: None, k_order: None }]),
        "parts[1].mask heads: need 1, got 2"
    );
    // The same pairs twice are found when asked for.
    let twice = Parts::new(vec![whole(), whole()], extent).expect("each part is well formed");
    assert_eq!(
        refusal(twice.check_disjoint()),
        "parts: need each pair at most once, got query 0 and key 0 twice (batch item 0, head 0)"
    );
    let gathered = Part { mask: mask(8, 2), q_order: None, k_order: Some([4, 4].into()) };
    let within = Parts::new(vec![gathered], extent).expect("a key may come twice, in disjoint rows");
    assert!(refusal(within.check_disjoint()).contains("query 0 and key 4 twice"));
}

/// Forward, a key may stand in several places; as a row of the transposed part it may not.
#[test]
fn a_key_twice_is_not_transposed() {
    let grid = BlockGrid::new(2, 3);
    let halves = Mask::new([1, 1, 2, 3], [true, true, false, false, false, true]).expect("sizes fit");
    let mask = BlockMask::new(&halves, grid).expect("it builds");
    let of = |k_order: [u32; 3]| {
        let part = Part { mask: mask.clone(), q_order: None, k_order: Some(k_order.into()) };
        Parts::new(vec![part], grid.extent()).expect("valid forward")
    };
    let twice = of([0, 1, 1]);
    twice.check_disjoint().expect("no query keeps both places");
    assert!(twice.keeps(0, 0, 0, 1) && twice.keeps(0, 0, 1, 1));
    assert_eq!(refusal(twice.transpose()), "parts[0].k_order: need each key at most once, got 1 twice");
    assert_eq!(refusal(of([0, 2, 1]).transpose()), "accepted");
}

#[test]
fn one_mask_is_parts_and_a_shape_is_a_grid() {
    let shape = AttentionShape::new(2, 3, 50, 16).kv_len(70);
    let mask = BlockMask::new(&Causal, shape).expect("it builds");
    assert_eq!(*mask.grid(), BlockGrid::new(50, 70).batch(2).heads(3));
    assert_eq!(*mask.grid(), BlockGrid::from(&shape));
    let parts = Parts::from(&mask);
    assert_eq!(*parts.extent(), mask.grid().extent());
    assert_eq!((parts.kept(), parts.visited(), parts.bytes()), (mask.kept(), mask.visited(), mask.bytes()));
    assert!(parts.keeps(1, 2, 0, 20) && !parts.keeps(1, 2, 0, 21) && !parts.keeps(2, 0, 0, 0));
    assert_eq!(parts.key_order(0, 0, 0), [(0..=20).collect::<Vec<u32>>()]);
    assert_eq!(Parts::new(vec![parts.parts()[0].clone()], *parts.extent()), Ok(parts));
}
