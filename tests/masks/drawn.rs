//! Masks, patterns and lengths as proptest draws them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::sync::Arc;
use wgpu_attention::mask::BlockGrid;
use wgpu_attention::pattern::Identity;
use wgpu_attention::{
    And, BlockLayout, Blocks, Causal, Document, Extent, First, Full, KeyLengths, Mask, Not, Or,
    PairPredicate, Pattern, Permutation, Predicate, Prefix, Site, Varies, Window,
};

pub(crate) type AnyOne = Arc<dyn Pattern>;

pub(crate) fn config() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

pub(crate) fn grids() -> impl Strategy<Value = BlockGrid> {
    let block = || prop_oneof![Just(16usize), Just(32), Just(64)];
    let len = || prop_oneof![1usize..=20, 1usize..=150];
    (1usize..=2, 1usize..=3, len(), len(), block(), block()).prop_map(
        |(batch, heads, q_len, kv_len, q, k)| {
            BlockGrid::new(q_len, kv_len).batch(batch).heads(heads).blocks(q, k)
        },
    )
}

/// An end of a window: near, past any sequence, at the edge of what a number holds.
pub(crate) fn reach() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0usize..=170, 1 => Just(1 << 30), 1 => Just(usize::MAX)]
}

/// Ids in runs or in disorder.
pub(crate) fn ids(len: usize) -> impl Strategy<Value = Vec<u32>> {
    let runs = vec((0u32..4, 1usize..40), len).prop_map(move |runs| {
        runs.into_iter().flat_map(|(id, count)| std::iter::repeat_n(id, count)).take(len).collect()
    });
    // The largest id, too: nothing comes after it.
    let disorder =
        vec(0u32..3, len).prop_map(|ids| ids.into_iter().map(|id| [0, 1, u32::MAX][id as usize]).collect());
    prop_oneof![runs, disorder]
}

pub(crate) fn layout(sizes: [usize; 3]) -> impl Strategy<Value = BlockLayout> {
    vec(prop::bool::ANY, sizes.iter().product::<usize>())
        .prop_map(move |cells| BlockLayout::new(sizes, cells).expect("sizes fit"))
}

pub(crate) fn boxed<P: Pattern + 'static>(pattern: P) -> AnyOne {
    Arc::new(pattern)
}

/// Every pattern of the crate that is no combination.
pub(crate) fn leaf(e: Extent) -> BoxedStrategy<AnyOne> {
    let documents = prop_oneof![
        ids(e.kv_len).prop_map(Document::new),
        vec(ids(e.kv_len), e.batch).prop_map(Document::per_batch),
    ];
    let positions = e.q_len.min(e.kv_len);
    let order = || Just((0..positions as u32).collect::<Vec<_>>()).prop_shuffle();
    let permutations = (
        prop_oneof![
            order().prop_map(Permutation::new),
            vec(order(), e.batch).prop_map(Permutation::per_batch),
            Just(Permutation::new((0..positions as u32).collect::<Vec<_>>())),
        ],
        prop::bool::ANY,
        0..=positions,
    );
    let permutations =
        permutations.prop_map(|(permutation, query, given)| permutation.query(query).given(given));
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
        reach().prop_map(|count| boxed(First { count })),
        documents.prop_map(boxed),
        permutations.prop_map(boxed),
        vec(0..=e.kv_len, e.batch).prop_map(|lengths| boxed(KeyLengths { lengths })),
        blocks.prop_map(boxed),
        mask.prop_map(boxed),
        (1usize..9, 0usize..9, 1usize..9).prop_map(|(a, b, c)| boxed(Predicate::new(
            move |site: &Site, i, j| { (a * i + b * j + site.head + 2 * site.batch).is_multiple_of(c) }
        ))),
        (1usize..40).prop_map(|step| boxed(PairPredicate::new(move |i, j| (i + j) / step % 2 == 0))),
    ]
    .boxed()
}

/// Patterns and combinations of them.
pub(crate) fn patterns(e: Extent) -> impl Strategy<Value = AnyOne> {
    leaf(e).prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| boxed(And(a, b))),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| boxed(Or(a, b))),
            inner.prop_map(|p| boxed(Not(p))),
        ]
    })
}

pub(crate) fn cases() -> impl Strategy<Value = (BlockGrid, AnyOne)> {
    grids().prop_flat_map(|grid| patterns(grid.extent()).prop_map(move |pattern| (grid, pattern)))
}

pub(crate) fn sites(grid: &BlockGrid) -> impl Iterator<Item = Site> + use<> {
    let extent = grid.extent();
    (0..grid.batch).flat_map(move |batch| (0..extent.heads).map(move |head| Site { batch, head, extent }))
}

pub(crate) fn pairs(grid: &BlockGrid) -> impl Iterator<Item = (Site, usize, usize)> + use<> {
    let (q_len, kv_len) = (grid.q_len, grid.kv_len);
    sites(grid).flat_map(move |site| (0..q_len).flat_map(move |i| (0..kv_len).map(move |j| (site, i, j))))
}

pub(crate) fn count(pattern: &dyn Pattern, grid: &BlockGrid) -> u64 {
    pairs(grid).filter(|(site, i, j)| pattern.keep(site, *i, *j)).count() as u64
}

/// A pattern that says along which axes it varies, right or wrong.
#[derive(Debug)]
pub(crate) struct Along<P> {
    pub(crate) pattern: P,
    pub(crate) axes: Varies,
}

impl<P: Pattern> Pattern for Along<P> {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        self.pattern.keep(site, i, j)
    }

    fn varies(&self) -> Varies {
        self.axes
    }

    fn identity(&self) -> Identity<'_> {
        self.pattern.identity()
    }
}
