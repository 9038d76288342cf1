//! Block masks against the one thing that defines them, `Pattern::keep`: every pattern with varied parameters and
//! lengths, in closed form and by scan, packed, transposed, counted, drawn.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wgpu_attention::mask::{BlockGrid, BlockMask, PackedMask, Part, Parts, RunKind};
use wgpu_attention::{
    And, AttentionShape, BlockLayout, Blocks, Causal, Document, Error, Extent, Full, KeyLengths, Mask, Not,
    Or, PairPredicate, Pattern, Predicate, Prefix, Result, Site, Span, Varies, Window,
};

type AnyOne = Arc<dyn Pattern>;

fn config() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

// ---- what is drawn ----

fn grids() -> impl Strategy<Value = BlockGrid> {
    let block = || prop_oneof![Just(16usize), Just(32), Just(64)];
    let len = || prop_oneof![1usize..=20, 1usize..=150];
    (1usize..=2, 1usize..=3, len(), len(), block(), block()).prop_map(
        |(batch, heads, q_len, kv_len, q, k)| {
            BlockGrid::new(q_len, kv_len).batch(batch).heads(heads).blocks(q, k)
        },
    )
}

/// An end of a window: near, past any sequence, at the edge of what a number holds.
fn reach() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0usize..=170, 1 => Just(1 << 30), 1 => Just(usize::MAX)]
}

/// Ids in runs or in disorder.
fn ids(len: usize) -> impl Strategy<Value = Vec<u32>> {
    let runs = vec((0u32..4, 1usize..40), len).prop_map(move |runs| {
        runs.into_iter().flat_map(|(id, count)| std::iter::repeat_n(id, count)).take(len).collect()
    });
    prop_oneof![runs, vec(0u32..3, len)]
}

fn layout(sizes: [usize; 3]) -> impl Strategy<Value = BlockLayout> {
    vec(prop::bool::ANY, sizes.iter().product::<usize>())
        .prop_map(move |cells| BlockLayout::new(sizes, cells).expect("sizes fit"))
}

fn boxed<P: Pattern + 'static>(pattern: P) -> AnyOne {
    Arc::new(pattern)
}

/// Every pattern of the crate that is no combination.
fn leaf(e: Extent) -> BoxedStrategy<AnyOne> {
    let documents = prop_oneof![
        ids(e.kv_len).prop_map(Document::new),
        vec(ids(e.kv_len), e.batch).prop_map(Document::per_batch),
    ];
    let blocks = (1usize..=70, prop::bool::ANY).prop_flat_map(move |(block, shared)| {
        let heads = if shared { 1 } else { e.heads };
        layout([heads, e.q_len.div_ceil(block), e.kv_len.div_ceil(block)])
            .prop_map(move |layout| Blocks { block, layout })
    });
    let mask = vec(prop::bool::ANY, 4).prop_flat_map(move |shared| {
        let full = [e.batch, e.heads, e.q_len, e.kv_len];
        let sizes: [usize; 4] = std::array::from_fn(|axis| if shared[axis] { 1 } else { full[axis] });
        vec(prop::bool::weighted(0.8), sizes.iter().product::<usize>())
            .prop_map(move |values| Mask::new(sizes, values).expect("sizes fit"))
    });
    prop_oneof![
        Just(Full).prop_map(boxed),
        Just(Causal).prop_map(boxed),
        Just(Causal::top_left()).prop_map(boxed),
        (reach(), reach()).prop_map(|(before, after)| boxed(Window { before, after })),
        reach().prop_map(|len| boxed(Prefix { len })),
        documents.prop_map(boxed),
        vec(0..=e.kv_len, e.batch).prop_map(|lengths| boxed(KeyLengths { lengths })),
        blocks.prop_map(boxed),
        mask.prop_map(boxed),
        (1usize..9, 0usize..9, 1usize..9).prop_map(|(a, b, c)| boxed(Predicate(move |site: &Site, i, j| {
            (a * i + b * j + site.head + 2 * site.batch).is_multiple_of(c)
        }))),
        (1usize..40).prop_map(|step| boxed(PairPredicate(move |i, j| (i + j) / step % 2 == 0))),
    ]
    .boxed()
}

/// Patterns and combinations of them.
fn patterns(e: Extent) -> impl Strategy<Value = AnyOne> {
    leaf(e).prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| boxed(And(a, b))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| boxed(Or(a, b))),
            inner.prop_map(|p| boxed(Not(p))),
        ]
    })
}

fn cases() -> impl Strategy<Value = (BlockGrid, AnyOne)> {
    grids().prop_flat_map(|grid| patterns(grid.extent()).prop_map(move |pattern| (grid, pattern)))
}

fn sites(grid: &BlockGrid) -> impl Iterator<Item = Site> + use<> {
    let extent = grid.extent();
    (0..grid.batch).flat_map(move |batch| (0..extent.heads).map(move |head| Site { batch, head, extent }))
}

fn pairs(grid: &BlockGrid) -> impl Iterator<Item = (Site, usize, usize)> + use<> {
    let (q_len, kv_len) = (grid.q_len, grid.kv_len);
    sites(grid).flat_map(move |site| (0..q_len).flat_map(move |i| (0..kv_len).map(move |j| (site, i, j))))
}

fn count(pattern: &dyn Pattern, grid: &BlockGrid) -> u64 {
    pairs(grid).filter(|(site, i, j)| pattern.keep(site, *i, *j)).count() as u64
}

// ---- properties ----

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
        let direct = Predicate(|site: &Site, i, j| mask.keeps(site.batch, site.head, j, i));
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

/// A pattern that says along which axes it varies, right or wrong.
#[derive(Debug)]
struct Along<P> {
    pattern: P,
    axes: Varies,
}

impl<P: Pattern> Pattern for Along<P> {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.pattern.keep(site, i, j)
    }

    fn varies(&self) -> Varies {
        self.axes
    }
}

// ---- the oracle catches what is wrong ----

/// A window whose closed form is wrong by `lost` keys before and by `gained` keys that all are said to attend.
#[derive(Debug)]
struct Wrong {
    lost: usize,
    gained: usize,
}

impl Pattern for Wrong {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        Window { before: 100, after: 0 }.keep(site, i, j)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        let mut spans = Window { before: 100, after: 0 }.spans(site, rows);
        spans[0].keys.start = (spans[0].keys.start + self.lost).min(spans[0].keys.end);
        if let [_, all, after] = &mut spans[..] {
            all.keys.end = (all.keys.end + self.gained).min(after.keys.end);
            after.keys.start = all.keys.end;
        }
        spans
    }
}

#[test]
fn a_wrong_closed_form_differs_from_the_scan() {
    let differs = |wrong: &Wrong, len: usize| {
        let grid = BlockGrid::new(len, len).blocks(16, 16);
        BlockMask::new(wrong, grid).expect("it builds") != BlockMask::scan(wrong, grid).expect("it builds")
    };
    assert!(!differs(&Wrong { lost: 0, gained: 0 }, 256));
    // One block too narrow, one block too wide.
    assert!(differs(&Wrong { lost: 16, gained: 0 }, 256));
    assert!(differs(&Wrong { lost: 0, gained: 16 }, 256));
    // One key too narrow or too wide, at a length that puts it at a block's edge.
    let off_by_one = |wrong: Wrong| {
        (200..216).any(|len| {
            let grid = BlockGrid::new(200, len).blocks(16, 16);
            BlockMask::new(&wrong, grid).expect("it builds")
                != BlockMask::scan(&wrong, grid).expect("it builds")
        })
    };
    assert!(!off_by_one(Wrong { lost: 0, gained: 0 }));
    assert!(off_by_one(Wrong { lost: 1, gained: 0 }));
    assert!(off_by_one(Wrong { lost: 0, gained: 1 }));
}

#[test]
fn heads_that_differ_in_secret_differ_from_the_scan() {
    let grid = BlockGrid::new(40, 40).batch(2).heads(2).blocks(16, 16);
    let by_head = Predicate(|site: &Site, i, j| j <= i + site.head);
    let by_item = Predicate(|site: &Site, i, j| j <= i + site.batch);
    let same = PairPredicate(|i, j| j <= i);
    let equal = |pattern: &dyn Pattern| {
        BlockMask::new(pattern, grid).expect("it builds")
            == BlockMask::scan(pattern, grid).expect("it builds")
    };
    assert!(equal(&by_head) && equal(&by_item) && equal(&same));
    assert!(!equal(&Along { pattern: by_head, axes: Varies { batch: true, heads: false } }));
    assert!(!equal(&Along { pattern: by_item, axes: Varies { batch: false, heads: true } }));
    assert!(equal(&Along { pattern: same, axes: Varies::default() }));
}

/// Stretches that are not what a pattern may return.
#[derive(Debug)]
struct Stretches(Vec<Span>);

impl Pattern for Stretches {
    fn keep(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn spans(&self, _: &Site, _: Range<usize>) -> Vec<Span> {
        self.0.clone()
    }
}

#[test]
fn disordered_stretches_are_refused() {
    let some = |keys| Span { keys, all: false };
    let error = |spans| {
        BlockMask::new(&Stretches(spans), BlockGrid::new(50, 50)).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(error(vec![some(0..50)]), Ok(()));
    let need = "Pattern::spans: need disjoint ascending stretches within 0..50, got";
    assert_eq!(error(vec![some(20..30), some(10..20)]), Err(format!("{need} 10..20 after key 30")));
    assert_eq!(error(vec![some(20..30), some(29..40)]), Err(format!("{need} 29..40 after key 30")));
    assert_eq!(error(vec![some(20..51)]), Err(format!("{need} 20..51 after key 0")));
}

// ---- size and cost ----

/// Counts how often a pattern is asked.
#[derive(Debug)]
struct Counting<P> {
    pattern: P,
    asked: AtomicU64,
}

impl<P: Pattern> Pattern for Counting<P> {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.pattern.keep(site, i, j)
    }

    fn spans(&self, site: &Site, rows: Range<usize>) -> Vec<Span> {
        self.pattern.spans(site, rows)
    }

    fn varies(&self) -> Varies {
        self.pattern.varies()
    }
}

/// Only the pairs of partial blocks are asked for.
#[test]
fn full_and_empty_blocks_cost_nothing() {
    let n = 64 * 64;
    let mut ids: Vec<u32> = (0..n as u32).map(|j| j / 1000).collect();
    ids.rotate_left(500);
    let layout = BlockLayout::new([1, 32, 32], (0..32 * 32).map(|cell| cell % 3 == 0)).expect("sizes fit");
    let patterns: [(AnyOne, u64); 9] = [
        (boxed(Full), 0),
        (boxed(Causal), 64),
        (boxed(Window { before: 512, after: 0 }), 2 * 64 - 8),
        (boxed(Window { before: 512, after: 512 }), 2 * (64 - 8)),
        (boxed(Prefix { len: 100 }), 64),
        (boxed(Document::new(ids)), 4 * 16 * 4),
        (boxed(KeyLengths { lengths: vec![1000] }), 64),
        (boxed(Blocks { block: 128, layout }), 0),
        (boxed(And(Causal, Not(Window { before: 512, after: 0 }))), 2 * 64),
    ];
    for (pattern, blocks) in patterns {
        let counting = Counting { pattern, asked: AtomicU64::new(0) };
        BlockMask::new(&counting, BlockGrid::new(n, n)).expect("it builds");
        let asked = counting.asked.into_inner() / (64 * 64);
        assert!(asked <= blocks, "{:?} was asked for {asked} blocks, not {blocks}", counting.pattern);
    }
}

/// Seconds, and MB of the packed mask.
fn build(pattern: &dyn Pattern, grid: BlockGrid) -> (f64, f64) {
    let start = std::time::Instant::now();
    let mask = BlockMask::new(pattern, grid).expect("it builds");
    (start.elapsed().as_secs_f64(), mask.bytes() as f64 / 1e6)
}

#[test]
fn a_million_keys_build_in_under_a_second_and_64_mb() {
    let n = 1 << 20;
    let ids: Vec<u32> = (0..n as u32).map(|j| j / 3001).collect();
    let patterns: [AnyOne; 7] = [
        boxed(Full),
        boxed(Causal),
        boxed(Window { before: 512, after: 0 }),
        boxed(Window { before: 4095, after: 4096 }),
        boxed(Prefix { len: 100_000 }),
        boxed(And(Causal, Document::new(ids))),
        boxed(And(Causal, KeyLengths { lengths: vec![1_000_001] })),
    ];
    for pattern in patterns {
        let (seconds, megabytes) = build(&pattern, BlockGrid::new(n, n));
        let name: String = format!("{pattern:?}").chars().take(40).collect();
        println!("{name:40} {seconds:.3} s {megabytes:.1} MB");
        assert!(seconds < 1.0, "{name}: {seconds} s");
        assert!(megabytes < 64.0, "{name}: {megabytes} MB");
    }
}

/// A million keys have 134 million blocks below the diagonal: whoever walks them one by one takes seconds.
#[test]
fn transposing_and_drawing_a_million_keys_follow_the_runs() {
    let mask = BlockMask::new(&Causal, BlockGrid::new(1 << 20, 1 << 20)).expect("it builds");
    let start = std::time::Instant::now();
    let turned = mask.transpose().expect("there are queries");
    assert_eq!(turned.kept(), mask.kept());
    assert!(mask.to_string().len() < 20_000 && mask.to_svg("causal").len() < 20_000);
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < 1.0, "{seconds} s");
}

#[test]
fn equal_tiles_are_stored_once() {
    let tiles =
        |pattern: &dyn Pattern, n| BlockMask::new(pattern, BlockGrid::new(n, n)).expect("it builds").tiles();
    for n in [1024, 8192] {
        assert_eq!(tiles(&Causal, n), 1);
        assert_eq!(tiles(&Window { before: 100, after: 0 }, n), 3);
        assert_eq!(tiles(&Window { before: 100, after: 30 }, n), 4);
    }
    let grid = BlockGrid::new(1024, 1024).batch(3).heads(5);
    let shared = BlockMask::new(&Causal, grid).expect("it builds");
    assert_eq!((shared.batch_stride(), shared.head_stride()), (0, 0));
    assert_eq!(
        shared.bytes(),
        BlockMask::new(&Causal, BlockGrid::new(1024, 1024)).expect("it builds").bytes()
    );
    let padded = BlockMask::new(&KeyLengths { lengths: vec![10, 20, 30] }, grid).expect("it builds");
    assert_eq!((padded.batch_stride(), padded.head_stride()), (16, 0));
}

// ---- edges ----

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

// ---- bad input ----

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
    assert_eq!(check(BlockGrid::new(5, 0)), "kv_len: need at least 1, got 0");
    let long = 1 << 33;
    assert_eq!(
        check(BlockGrid::new(5, long)),
        "kv_len needs 8589934592, but an index of 32 bits is 4294967295"
    );
    assert_eq!(
        check(BlockGrid::new(long, 5)),
        "q_len needs 8589934592, but an index of 32 bits is 4294967295"
    );
    assert_eq!(
        refusal(BlockMask::new(
            &Predicate(|_, _, _| true),
            BlockGrid::new(1 << 20, 5).batch(1 << 20).blocks(16, 16)
        )),
        "row table of the block mask needs 137438953474, but 32-bit word index is 4294967295"
    );
    let empty = BlockMask::new(&Full, BlockGrid::new(0, 5)).expect("empty is valid");
    assert_eq!(refusal(empty.transpose()), "kv_len: need at least 1, got 0");
}

#[test]
fn bad_parameters() {
    let grid = BlockGrid::new(6, 10).batch(2).heads(3);
    let check = |pattern: &dyn Pattern| refusal(BlockMask::new(pattern, grid));
    assert_eq!(
        check(&KeyLengths { lengths: vec![1, 2, 3] }),
        "KeyLengths.lengths: need 2 lengths, one a batch item, got 3"
    );
    assert_eq!(
        check(&KeyLengths { lengths: vec![10, 11] }),
        "KeyLengths.lengths[1]: need at most kv_len (10), got 11"
    );
    assert_eq!(check(&Document::new([1; 9])), "Document.ids[0]: need 10 ids, one a key, got 9");
    assert_eq!(
        check(&Document::per_batch(vec![vec![0; 10]; 3])),
        "Document.ids: need 1 list or 2, one a batch item, got 3"
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
        "Blocks.layout: need at least one head and one block a side, got 1 x 0 x 4"
    );
    let columns = |heads: &[Vec<Vec<u32>>]| refusal(BlockLayout::from_columns(4, heads));
    assert_eq!(columns(&[vec![vec![0, 3], vec![]]]), "accepted");
    assert_eq!(columns(&[]), "Blocks.layout: need at least one head and one block a side, got 0 x 0 x 4");
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
        "Blocks.layout needs 4294967296, but 32-bit index of a key block is 4294967295"
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

// ---- pictures ----

fn picture(pattern: &dyn Pattern, q_len: usize, kv_len: usize) -> String {
    let mask = BlockMask::new(pattern, BlockGrid::new(q_len, kv_len)).expect("it builds");
    mask.pairs(0, 0).trim_end().replace('\n', " ")
}

/// The pictures of the documentation, for Lq = Lk, Lq < Lk, Lq > Lk.
#[test]
fn pictures() {
    let three = |pattern: &dyn Pattern| [(4, 4), (3, 5), (4, 3)].map(|(q, k)| picture(pattern, q, k));
    assert_eq!(three(&Full), ["████ ████ ████ ████", "█████ █████ █████", "███ ███ ███ ███"]);
    assert_eq!(three(&Causal), ["█··· ██·· ███· ████", "███·· ████· █████", "··· █·· ██· ███"]);
    assert_eq!(three(&Causal::top_left()), ["█··· ██·· ███· ████", "█···· ██··· ███··", "█·· ██· ███ ███"]);
    assert_eq!(
        three(&Window { before: 1, after: 0 }),
        ["█··· ██·· ·██· ··██", "·██·· ··██· ···██", "··· █·· ██· ·██"]
    );
    assert_eq!(three(&Prefix { len: 2 }), ["██·· ██·· ███· ████", "███·· ████· █████", "██· ██· ██· ███"]);
    assert_eq!(
        three(&And(Causal, Window { before: 1, after: 1 })),
        ["█··· ██·· ·██· ··██", "·██·· ··██· ···██", "··· █·· ██· ·██"]
    );
    assert_eq!(
        three(&Or(Causal, Window { before: 0, after: 1 })),
        ["██·· ███· ████ ████", "████· █████ █████", "█·· ██· ███ ███"]
    );
    assert_eq!(three(&Not(Causal)), ["·███ ··██ ···█ ····", "···██ ····█ ·····", "███ ·██ ··█ ···"]);
    let document = Document::new([0, 0, 1, 1, 1]);
    assert_eq!(picture(&document, 5, 5), "██··· ██··· ··███ ··███ ··███");
    assert_eq!(picture(&document, 2, 5), "··███ ··███");
    assert_eq!(picture(&document, 6, 5), "····· ██··· ██··· ··███ ··███ ··███");
    let layout = BlockLayout::new([1, 2, 3], [true, false, false, false, true, true]).expect("sizes fit");
    assert_eq!(picture(&Blocks { block: 2, layout }, 4, 6), "██···· ██···· ··████ ··████");
    let keys = Mask::new([1, 1, 1, 4], [true, false, true, true]).expect("sizes fit");
    assert_eq!(picture(&keys, 3, 4), "█·██ █·██ █·██");
}

/// Ends as large as a number holds are ends that are not there.
#[test]
fn endless_windows() {
    for (q_len, kv_len) in [(70, 70), (40, 90), (90, 40)] {
        let mask = |pattern: &dyn Pattern| {
            let grid = BlockGrid::new(q_len, kv_len).blocks(16, 16);
            assert_eq!(BlockMask::new(pattern, grid), BlockMask::scan(pattern, grid));
            BlockMask::new(pattern, grid).expect("it builds")
        };
        for end in [kv_len + q_len, 1 << 30, isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
            assert_eq!(mask(&Window { before: end, after: 0 }), mask(&Causal), "{end}");
            assert_eq!(mask(&Window { before: end, after: end }), mask(&Full), "{end}");
            assert_eq!(mask(&Prefix { len: end }), mask(&Full), "{end}");
            let later = mask(&Window { before: 0, after: end });
            assert_eq!(later, mask(&Or(Not(Causal), Window { before: 0, after: 0 })), "{end}");
        }
    }
}

#[test]
fn drawing_by_block() {
    let mask = BlockMask::new(&Causal, BlockGrid::new(200, 300)).expect("it builds");
    assert_eq!(
        mask.to_string(),
        "\
[1, 1, 200, 300] in blocks of 64 x 64: 40100 pairs kept, 69632 visited (x 1.74), 1708 bytes
█ full  ▒ partial  · empty
█▒▒··
██▒▒·
███▒▒
████▒
"
    );
}

#[test]
fn drawing_of_heads_that_differ() {
    let pattern = Predicate(|site: &Site, i, j| site.head < 5 && (i + site.head * 16) / 32 == j / 32);
    let mask = BlockMask::new(&pattern, BlockGrid::new(64, 64).heads(6).blocks(32, 32)).expect("it builds");
    let text = mask.to_string();
    assert_eq!(
        text.lines().skip(1).collect::<Vec<_>>().join("\n"),
        "\
batch item 0, head 0: █ full  ▒ partial  · empty
█·
·█
batch item 0, head 1: █ full  ▒ partial  · empty
▒▒
·▒
batch item 0, head 2: █ full  ▒ partial  · empty
·█
··
batch item 0, head 3: █ full  ▒ partial  · empty
·▒
··
and 2 more"
    );
}

/// A large mask is drawn in cells of several blocks and fits a terminal, in time that follows the runs.
#[test]
fn drawing_of_a_large_mask() {
    let n = 1 << 20;
    let mask =
        BlockMask::new(&Window { before: 200_000, after: 0 }, BlockGrid::new(n, n)).expect("it builds");
    let text = mask.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].ends_with("(a cell is 228 x 228 blocks)"), "{}", lines[1]);
    assert_eq!(lines.len(), 2 + 72);
    assert!(lines[2..].iter().all(|line| line.chars().count() == 72));
    assert_eq!(lines[2].trim_end_matches('·'), "▒");
    assert_eq!(lines[42].trim_matches('·'), "▒▒████████████▒");
}

#[test]
fn svg_by_pair_and_by_block() {
    let small = BlockMask::new(&Causal, BlockGrid::new(20, 20).blocks(16, 16)).expect("it builds");
    let svg = small.to_svg("causal <&> \"20\"");
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("<title>causal &lt;&amp;&gt; &quot;20&quot;</title>"));
    assert!(
        svg.contains("visited, not kept")
            && svg.contains("20 queries (down) x 20 keys (across), 52.5 % of the pairs kept")
    );
    // The first query keeps one key of the partial block, the last but one all 16 of the full one.
    assert!(svg.contains("d=\"M0 0h1v1h-1z") && svg.contains("M0 18h16v1h-16z"));
    let large = BlockMask::new(&Causal, BlockGrid::new(1 << 16, 1 << 16)).expect("it builds");
    let svg = large.to_svg("causal");
    assert!(
        svg.contains("a cell: 512 x 512")
            && svg.contains("M0 127h127v1h-127z")
            && !svg.contains("visited, not kept")
    );
    assert!(svg.len() < 20_000, "{}", svg.len());
    // Nothing outside of the file is named but the format itself.
    assert_eq!(svg.matches("http").count(), 1);
    let empty = BlockMask::new(&Full, BlockGrid::new(0, 4)).expect("empty is valid");
    assert!(empty.to_svg("empty").contains("0 queries"));
}
