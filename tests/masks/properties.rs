//! What holds for every pattern, with varied parameters and lengths.

use crate::drawn::*;
use proptest::prelude::*;
use wgpu_attention::mask::{BlockGrid, BlockMask, PackedMask, Part, Parts};
use wgpu_attention::{And, Full, Not, Or, Pattern, Predicate, Site, Span, Varies};

proptest! {
    #![proptest_config(config())]

    /// The closed form gives what asking for every pair gives: the same runs, tiles and tables.
    #[test]
    fn closed_form_equals_scan((grid, pattern) in cases()) {
        let (built, scanned) = (BlockMask::new(&pattern, grid)?, BlockMask::scan(&pattern, grid)?);
        prop_assert!(built == scanned, "{built:?}\n{built}\n{scanned:?}\n{scanned}");
    }

    /// A stretch that all attend is attended by all, and nothing outside of the stretches is attended: for any rows,
    /// not only for those of a block.
    #[test]
    fn stretches_say_the_truth(((grid, pattern), start, len) in (cases(), 0usize..150, 1usize..70)) {
        let rows = start.min(grid.q_len - 1)..(start + len).min(grid.q_len).max(start.min(grid.q_len - 1) + 1);
        for site in sites(&grid) {
            let spans = pattern.spans(&site, rows.clone());
            let mut next = 0;
            for Span { keys, .. } in &spans {
                prop_assert!(next <= keys.start && keys.start <= keys.end && keys.end <= grid.kv_len, "{spans:?}");
                next = keys.end;
            }
            for j in 0..grid.kv_len {
                let cover = spans.iter().find(|span| span.keys.contains(&j)).map(|span| span.all);
                let (any, all) = rows.clone().map(|i| pattern.keep(&site, i, j))
                    .fold((false, true), |(any, all), keep| (any || keep, all && keep));
                prop_assert!(cover.is_some() || !any, "key {j} of {rows:?} outside of {spans:?}");
                prop_assert!(cover != Some(true) || all, "key {j} of {rows:?} in {spans:?}");
            }
            let words = (0..grid.kv_len).step_by(7).map(|j| (j, pattern.keep_word(&site, rows.start, j)));
            for (j, word) in words {
                for b in 0..32 {
                    let keep = j + b < grid.kv_len && pattern.keep(&site, rows.start, j + b);
                    prop_assert_eq!(word >> b & 1 == 1, keep, "word of row {} key {} bit {}", rows.start, j, b);
                }
            }
            let mut row = vec![u32::MAX; grid.kv_len.div_ceil(32)];
            pattern.row(&site, rows.start, &mut row);
            for j in 0..32 * row.len() {
                let keep = j < grid.kv_len && pattern.keep(&site, rows.start, j);
                prop_assert_eq!(row[j / 32] >> (j % 32) & 1 == 1, keep, "row {} key {}", rows.start, j);
            }
        }
    }

    /// What can be asked of a mask follows from `keep`.
    #[test]
    fn asking_and_counting((grid, pattern) in cases()) {
        let mask = BlockMask::new(&pattern, grid)?;
        for (site, i, j) in pairs(&grid) {
            prop_assert_eq!(mask.keeps(site.batch, site.head, i, j), pattern.keep(&site, i, j), "{:?} {} {}", site, i, j);
        }
        prop_assert_eq!(mask.kept(), count(&pattern, &grid));
        let blocks = sites(&grid).flat_map(|site| (0..grid.q_blocks()).map(move |block| (site, block)));
        let visited: u64 = blocks.map(|(site, block)| {
            let row = mask.row(site.batch, site.head, block);
            row.full.iter().chain(row.partial).map(|run| u64::from(run.count)).sum::<u64>()
        }).sum();
        prop_assert_eq!(mask.visited(), visited * (grid.block_q * grid.block_k) as u64);
        prop_assert!(mask.waste() >= 1.0);
        for site in sites(&grid) {
            for i in (0..grid.q_len).step_by(7) {
                let order = mask.key_order(site.batch, site.head, i);
                let row = mask.row(site.batch, site.head, i / grid.block_q);
                let full: usize = row.full.iter().map(|run| run.count as usize * grid.block_k).sum();
                prop_assert!(order[..full].is_sorted() && order[full..].is_sorted());
                let mut sorted = order;
                sorted.sort_unstable();
                let keys: Vec<u32> = (0..grid.kv_len as u32).filter(|&j| pattern.keep(&site, i, j as usize)).collect();
                prop_assert_eq!(sorted, keys);
            }
        }
    }

    /// The words that a kernel reads say the same, and no key past the last is ever kept in them.
    #[test]
    fn packed_words_decode((grid, pattern) in cases()) {
        let mask = BlockMask::new(&pattern, grid)?;
        let packed = mask.packed();
        prop_assert_eq!(packed.words.len() as u64 * 4, mask.bytes());
        for site in sites(&grid) {
            for q_block in 0..grid.q_blocks() {
                let decoded = decode(&packed, &grid, &site, q_block);
                for (r, keys) in decoded.iter().enumerate() {
                    let i = q_block * grid.block_q + r;
                    prop_assert!(keys.iter().all(|&j| j < grid.kv_len), "row {i}: {keys:?}");
                    if i < grid.q_len {
                        let expected: Vec<usize> = (0..grid.kv_len).filter(|&j| pattern.keep(&site, i, j)).collect();
                        prop_assert_eq!(keys, &expected, "{:?} row {}", site, i);
                    }
                }
            }
        }
    }

    /// Transposed, the pairs are the same with i and j exchanged; twice, the mask is the same.
    #[test]
    fn transposition((grid, pattern) in cases()) {
        let mask = BlockMask::new(&pattern, grid)?;
        let turned = mask.transpose()?;
        for (site, i, j) in pairs(&grid) {
            prop_assert_eq!(turned.keeps(site.batch, site.head, j, i), mask.keeps(site.batch, site.head, i, j));
        }
        prop_assert_eq!(turned.kept(), mask.kept());
        // The transposed mask is what building it directly gives, apart from what need not be stored apart.
        let whole = mask.clone();
        let direct = Predicate::new(move |site: &Site, i, j| whole.keeps(site.batch, site.head, j, i));
        let axes = Varies { batch: mask.batch_stride() > 0, heads: mask.head_stride() > 0 };
        let direct = BlockMask::scan(&Along { pattern: direct, axes }, *turned.grid())?;
        prop_assert!(turned == direct, "{turned:?} {turned}\n{direct:?} {direct}");
        prop_assert!(turned.transpose()? == mask);
    }

    /// And, Or and Not are those of sets.
    #[test]
    fn set_algebra((grid, a, b) in grids().prop_flat_map(|grid| {
        (Just(grid), patterns(grid.extent()), patterns(grid.extent()))
    })) {
        let total = (grid.batch * grid.heads * grid.q_len * grid.kv_len) as u64;
        let mask = |pattern: AnyOne| BlockMask::new(&pattern, grid);
        let (in_a, in_b) = (mask(a.clone())?.kept(), mask(b.clone())?.kept());
        let both = mask(boxed(And(a.clone(), b.clone())))?;
        let either = mask(boxed(Or(a.clone(), b.clone())))?;
        prop_assert_eq!(both.kept() + either.kept(), in_a + in_b);
        prop_assert_eq!(mask(boxed(Not(a.clone())))?.kept(), total - in_a);
        let de_morgan = boxed(Not(Or(Not(a.clone()), Not(b.clone()))));
        prop_assert!(mask(de_morgan)? == both);
        prop_assert!(mask(boxed(Not(Not(a.clone()))))? == mask(a)?);
    }

    /// A part in an order of its own means the pairs at the ordered positions.
    #[test]
    fn orders_of_parts(
        (grid, pattern, q_order, k_order) in cases().prop_flat_map(|(grid, pattern)| {
            let shuffled = |len: usize| Just((0..len as u32).collect::<Vec<_>>()).prop_shuffle();
            (Just(grid), Just(pattern), shuffled(grid.q_len), shuffled(grid.kv_len))
        })
    ) {
        let mask = BlockMask::new(&pattern, grid)?;
        let nothing = BlockMask::new(&Not(Full), grid)?;
        let parts = Parts::new(vec![
            Part { mask: nothing, q_order: None, k_order: None },
            Part { mask: mask.clone(), q_order: Some(q_order.clone().into()), k_order: Some(k_order.clone().into()) },
        ], grid.extent())?;
        parts.check_disjoint()?;
        prop_assert_eq!((parts.kept(), parts.visited()), (mask.kept(), mask.visited()));
        for (site, i, j) in pairs(&grid) {
            let at = (q_order[i] as usize, k_order[j] as usize);
            prop_assert_eq!(parts.keeps(site.batch, site.head, at.0, at.1), mask.keeps(site.batch, site.head, i, j));
        }
        let keys = parts.key_order(0, 0, q_order[0] as usize);
        let expected: Vec<u32> = mask.key_order(0, 0, 0).iter().map(|&j| k_order[j as usize]).collect();
        prop_assert_eq!(keys, vec![vec![], expected]);
    }

    /// The same twice gives the same words: nothing depends on a hash.
    #[test]
    fn building_is_deterministic((grid, pattern) in cases()) {
        prop_assert_eq!(BlockMask::new(&pattern, grid)?.packed(), BlockMask::new(&pattern, grid)?.packed());
    }
}

/// The kept keys of each row of a block of queries, read from the words as their description says.
fn decode(packed: &PackedMask, grid: &BlockGrid, site: &Site, q_block: usize) -> Vec<Vec<usize>> {
    let word = |at: usize| packed.words[at] as usize;
    let row = site.batch * packed.batch_stride as usize + site.head * packed.head_stride as usize + q_block;
    let at = packed.rows_at as usize + 2 * row;
    let (full, partial, end) = (word(at), word(at + 1), word(at + 2));
    let mut keys = vec![Vec::new(); grid.block_q];
    for run in full..end {
        let at = packed.runs_at as usize + 3 * run;
        let (first, count, tile) = (word(at), word(at + 1), packed.words[at + 2]);
        assert_eq!(tile == PackedMask::FULL, run < partial);
        for block in first..first + count {
            for (r, keys) in keys.iter_mut().enumerate() {
                let words = grid.block_k.div_ceil(32);
                keys.extend((0..grid.block_k).filter_map(|key| {
                    let bit = packed.tiles_at as usize + (tile as usize).wrapping_mul(grid.block_q * words);
                    let keep = tile == PackedMask::FULL
                        || packed.words[bit + r * words + key / 32] >> (key % 32) & 1 == 1;
                    keep.then_some(block * grid.block_k + key)
                }));
            }
        }
    }
    keys.iter_mut().for_each(|keys| keys.sort_unstable());
    keys
}
