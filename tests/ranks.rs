//! Who holds which rows and who needs which keys, against the pattern itself: every pattern of the crate, under drawn lengths.
#![allow(clippy::single_range_in_vec_init, reason = "a list of one stretch is meant")]

use std::ops::Range;
use wgpu_attention::pattern::Excerpt;
use wgpu_attention::ranks::{Assignment, needs, source, target};
use wgpu_attention::{
    BigBird, BlockGrid, BlockMask, Causal, Error, Extent, Full, KeyLengths, Parts, Pattern, Site, Window,
};
use wgpu_attention_testing::{Draw, PATTERNS, picked};

fn sites(extent: Extent) -> impl Iterator<Item = Site> {
    (0..extent.batch).flat_map(move |batch| (0..extent.heads).map(move |head| Site { batch, head, extent }))
}

fn positions(stretches: &[Range<usize>]) -> Vec<usize> {
    stretches.iter().cloned().flatten().collect()
}

/// Ascending stretches of `0..len`, some empty, some that touch.
fn stretches(draw: &mut Draw, len: usize) -> Vec<Range<usize>> {
    let (mut at, mut stretches) = (0, vec![]);
    while at < len {
        let end = (at + draw.below(90)).min(len);
        if !draw.once_in(3) {
            stretches.push(at..end);
        }
        at = end + if draw.once_in(2) { 0 } else { draw.below(40) };
    }
    stretches
}

fn drawn_extent(draw: &mut Draw) -> Extent {
    Extent {
        batch: 1 + draw.below(2),
        heads: 1 + draw.below(2),
        q_len: 1 + draw.below(200),
        kv_len: 1 + draw.below(200),
    }
}

#[test]
fn an_excerpt_keeps_what_the_whole_keeps() {
    for (index, (name, _)) in PATTERNS.iter().enumerate() {
        for seed in 0..6 {
            let mut draw = Draw::new(seed, index as u64);
            let whole = drawn_extent(&mut draw);
            let pattern = picked(name, &whole, seed);
            let [queries, keys] = [whole.q_len, whole.kv_len].map(|len| stretches(&mut draw, len));
            let excerpt = Excerpt::new(pattern.as_dyn(), whole, &queries, &keys).unwrap();
            let (queries, keys) = (positions(&queries), positions(&keys));
            let extent = excerpt.extent();
            assert_eq!((extent.q_len, extent.kv_len), (queries.len(), keys.len()));
            for (site, at) in sites(extent).zip(sites(whole)) {
                for (i, &query) in queries.iter().enumerate() {
                    for (j, &key) in keys.iter().enumerate() {
                        let kept = pattern.as_dyn().keep(&at, query, key);
                        assert_eq!(excerpt.keep(&site, i, j), kept, "{pattern:?} {whole:?} {query} {key}");
                    }
                    for j in [0, 1, 30, 61] {
                        let word = (0..32).filter(|b| j + b < keys.len() && excerpt.keep(&site, i, j + b));
                        let word = word.fold(0, |word, bit| word | 1 << bit);
                        assert_eq!(excerpt.keep_word(&site, i, j), word, "{pattern:?} {i} {j}");
                    }
                }
            }
            // Closed forms, words, twins and rows, in blocks of any size.
            let (queries, keys) = (extent.q_len, extent.kv_len);
            let grid = BlockGrid::new(queries, keys).batch(whole.batch).heads(whole.heads);
            let grid = grid.blocks(draw.pick(&[16, 32, 64]), draw.pick(&[16, 32, 64]));
            let (mask, scan) =
                (BlockMask::new(&excerpt, grid).unwrap(), BlockMask::scan(&excerpt, grid).unwrap());
            // A pattern may call axes different that are not.
            let same = |b, h, i| mask.key_order(b, h, i) == scan.key_order(b, h, i);
            assert!(
                sites(extent).all(|site| (0..queries).all(|i| same(site.batch, site.head, i))),
                "{pattern:?}"
            );
            assert_eq!(Parts::lower(&excerpt, grid).unwrap().kept(), scan.kept());
        }
    }
}

#[test]
fn each_row_has_one_rank() {
    let mut draw = Draw::new(1, 1);
    for _ in 0..300 {
        let (len, block, ranks) = (draw.below(700), 1 + draw.below(80), 1 + draw.below(20));
        let uneven: Vec<usize> = (0..ranks).map(|_| draw.below(30)).collect();
        let assignments = [
            Assignment::contiguous(len, block, ranks).unwrap(),
            Assignment::zig_zag(len, block, ranks).unwrap(),
            Assignment::uneven(&uneven).unwrap(),
        ];
        for (kind, rows) in assignments.iter().enumerate() {
            assert_eq!(rows.ranks(), ranks);
            let mut all: Vec<usize> = (0..ranks).flat_map(|rank| positions(rows.rows(rank))).collect();
            all.sort_unstable();
            assert_eq!(all, (0..rows.len()).collect::<Vec<_>>());
            for rank in 0..ranks {
                let own = positions(rows.rows(rank));
                assert_eq!(rows.count(rank), own.len());
                assert!(rows.rows(rank).windows(2).all(|pair| pair[0].end < pair[1].start));
                for (place, &row) in own.iter().enumerate() {
                    assert_eq!((rows.place(rank, row), rows.owner(row)), (Some(place), Some(rank)));
                }
                // Whole blocks, but for the end.
                let ends = rows.rows(rank).iter().flat_map(|it| [it.start, it.end]);
                assert!(kind == 2 || ends.into_iter().all(|end| end % block == 0 || end == len));
            }
            assert_eq!(rows.owner(rows.len()), None);
        }
    }
}

#[test]
fn stripes_of_a_causal_mask_balance() {
    let (len, ranks) = (4096, 4);
    let pairs = |rows: &Assignment, rank| positions(rows.rows(rank)).iter().map(|i| i + 1).sum::<usize>();
    let spread = |rows: &Assignment| {
        let pairs: Vec<_> = (0..ranks).map(|rank| pairs(rows, rank)).collect();
        *pairs.iter().max().unwrap() as f64 / *pairs.iter().min().unwrap() as f64
    };
    assert!(spread(&Assignment::zig_zag(len, 64, ranks).unwrap()) < 1.001);
    assert!(spread(&Assignment::contiguous(len, 64, ranks).unwrap()) > 6.0);
    // Rank r has stripes r and 2 R - 1 - r; the last one has the two in the middle, which touch.
    let rows = Assignment::zig_zag(len, 64, ranks).unwrap();
    assert_eq!(rows.rows(1), [512..1024, 3072..3584]);
    assert_eq!(rows.rows(3), [1536..2560]);
}

#[test]
fn needs_are_the_blocks_that_any_query_attends() {
    for (index, (name, _)) in PATTERNS.iter().enumerate() {
        for seed in 0..4 {
            let mut draw = Draw::new(seed, 100 + index as u64);
            let extent = drawn_extent(&mut draw);
            let pattern = picked(name, &extent, seed);
            let (ranks, block) = (1 + draw.below(5), draw.pick(&[16, 32]));
            let queries = Assignment::zig_zag(extent.q_len, 16, ranks).unwrap();
            let keys = match draw.below(2) {
                0 => Assignment::contiguous(extent.kv_len, 16, ranks).unwrap(),
                _ => {
                    // Owners whose rows end within a block.
                    let mut rows: Vec<usize> =
                        (1..ranks).map(|_| draw.below(extent.kv_len / ranks)).collect();
                    rows.push(extent.kv_len - rows.iter().sum::<usize>());
                    Assignment::uneven(&rows).unwrap()
                }
            };
            for rank in 0..ranks {
                let needs = needs(pattern.as_dyn(), extent, [&queries, &keys], rank, block).unwrap();
                let own = positions(queries.rows(rank));
                let attended = |j| {
                    let attends = |site: Site| own.iter().any(|&i| pattern.as_dyn().keep(&site, i, j));
                    sites(extent).any(attends)
                };
                let attended: Vec<bool> = (0..extent.kv_len).map(attended).collect();
                let mut foreign = 0;
                for owner in 0..ranks {
                    let needed = |j: &usize| {
                        let first = j / block * block;
                        attended[first..(first + block).min(extent.kv_len)].contains(&true)
                    };
                    let expected: Vec<_> = positions(keys.rows(owner)).into_iter().filter(needed).collect();
                    assert_eq!(
                        positions(needs.from(owner)),
                        expected,
                        "{pattern:?} {extent:?} {rank} {owner}"
                    );
                    assert_eq!(needs.keys(owner), expected.len());
                    assert!(needs.from(owner).windows(2).all(|pair| pair[0].end < pair[1].start));
                    foreign += if owner == rank { 0 } else { expected.len() };
                }
                assert_eq!((needs.rank(), needs.foreign()), (rank, foreign));
            }
        }
    }
}

#[test]
fn sparse_patterns_need_little() {
    let extent = Extent { batch: 1, heads: 1, q_len: 8192, kv_len: 8192 };
    let rows = Assignment::contiguous(8192, 64, 8).unwrap();
    let foreign =
        |pattern: &dyn Pattern, rank| needs(pattern, extent, [&rows, &rows], rank, 64).unwrap().foreign();
    assert_eq!(foreign(&Full, 3), 7 * 1024);
    assert_eq!(foreign(&Causal, 3), 3 * 1024);
    // One block of each neighbour.
    assert_eq!(foreign(&Window { before: 64, after: 64 }, 3), 128);
    assert_eq!(foreign(&Window { before: 64, after: 64 }, 0), 64);
    // Beside the neighbours' block, the global one, and at most as many random ones as there are rows of blocks.
    let bigbird = BigBird { block: 64, window: 3, global: 1, random: 1, seed: 5 };
    let blocks = foreign(&bigbird, 3) / 64;
    assert!((4..=3 + 16).contains(&blocks), "{blocks}");
    // The rank that holds the global rows needs all.
    assert_eq!(foreign(&bigbird, 0), 7 * 1024);
    // Padding is not sent.
    assert_eq!(foreign(&KeyLengths { lengths: vec![1000] }, 7), 1024);
}

#[test]
fn each_rank_meets_each_once() {
    for ranks in 1..9 {
        for rank in 0..ranks {
            let mut met: Vec<_> = (0..ranks).map(|step| source(rank, step, ranks)).collect();
            assert_eq!(met[0], rank);
            assert!((0..ranks).all(|step| source(target(rank, step, ranks), step, ranks) == rank));
            met.sort_unstable();
            assert_eq!(met, (0..ranks).collect::<Vec<_>>());
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let name = |error: Error| match error {
        Error::Argument { name, .. } => name.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(name(Assignment::contiguous(10, 0, 2).unwrap_err()), "block");
    assert_eq!(name(Assignment::zig_zag(10, 16, 0).unwrap_err()), "ranks");
    assert_eq!(name(Assignment::uneven(&[]).unwrap_err()), "ranks");

    let extent = Extent { batch: 1, heads: 1, q_len: 100, kv_len: 200 };
    let excerpt = |queries: &[Range<usize>], keys: &[Range<usize>]| {
        name(Excerpt::new(&Full, extent, queries, keys).unwrap_err())
    };
    assert_eq!(excerpt(&[0..101], &[0..1]), "queries");
    assert_eq!(excerpt(&[10..20, 5..8], &[0..1]), "queries");
    assert_eq!(excerpt(&[0..1], &[0..10, 9..12]), "keys");
    let lengths = KeyLengths { lengths: vec![300] };
    assert_eq!(name(Excerpt::new(&lengths, extent, &[], &[]).unwrap_err()), "KeyLengths.lengths[0]");
    let some = Excerpt::new(&Full, extent, &[0..50], &[0..60]).unwrap();
    assert_eq!(name(BlockMask::new(&some, BlockGrid::new(50, 61)).unwrap_err()), "Excerpt");

    let [queries, keys, three] =
        [(100, 2), (200, 2), (200, 3)].map(|(len, ranks)| Assignment::contiguous(len, 16, ranks).unwrap());
    let refused =
        |sides: [&Assignment; 2], rank, block| name(needs(&Full, extent, sides, rank, block).unwrap_err());
    assert_eq!(refused([&keys, &keys], 0, 64), "queries");
    assert_eq!(refused([&queries, &queries], 0, 64), "keys");
    assert_eq!(refused([&queries, &three], 0, 64), "keys");
    assert_eq!(refused([&queries, &keys], 2, 64), "rank");
    assert_eq!(refused([&queries, &keys], 0, 24), "block");
}
