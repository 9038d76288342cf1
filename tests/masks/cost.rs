//! Size and cost.

use crate::drawn::*;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use wgpu_attention::mask::{BlockGrid, BlockMask};
use wgpu_attention::pattern::Identity;
use wgpu_attention::{
    And, BlockLayout, Blocks, Causal, Document, Full, KeyLengths, Not, Pattern, Prefix, Site, Span, Varies,
    Window,
};

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

    fn identity(&self) -> Identity<'_> {
        self.pattern.identity()
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
