//! The oracle catches what is wrong.

use crate::drawn::*;
use std::ops::Range;
use wgpu_attention::mask::{BlockGrid, BlockMask};
use wgpu_attention::pattern::Identity;
use wgpu_attention::{PairPredicate, Pattern, Predicate, Site, Span, Varies, Window};

/// A window whose closed form is wrong by `lost` keys before and by `gained` keys that all are said to attend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
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
    let by_head = Predicate::new(|site: &Site, i, j| j <= i + site.head);
    let by_item = Predicate::new(|site: &Site, i, j| j <= i + site.batch);
    let same = PairPredicate::new(|i, j| j <= i);
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stretches(Vec<Span>);

impl Pattern for Stretches {
    fn keep(&self, _: &Site, _: usize, _: usize) -> bool {
        true
    }

    fn spans(&self, _: &Site, _: Range<usize>) -> Vec<Span> {
        self.0.clone()
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
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
