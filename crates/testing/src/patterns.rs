use super::Draw;
use std::fmt;
use std::sync::Arc;
use wgpu_attention::pattern::CausalTopLeft;
use wgpu_attention::{
    And, BigBird, BlockLayout, Blocks, Causal, Dilated, Document, Extent, First, Fixed, FixedPart, Full,
    Global, KeyLengths, Longformer, Mask, Not, Or, PairPredicate, Pattern, Permutation, Predicate, Prefix,
    Random, Strided, StridedPart, Window,
};

type Make = fn(&mut Draw, &Extent) -> Box<dyn Pattern>;

/// Every pattern of the crate under the parameters that a seed draws. A new pattern is a new line.
pub const PATTERNS: &[(&str, Make)] = &[
    ("full", |_, _| Box::new(Full)),
    ("causal", |_, _| Box::new(Causal)),
    ("causal_top_left", |_, _| Box::new(CausalTopLeft)),
    ("window", |d, e| Box::new(window(d, e))),
    ("window_open", |d, e| Box::new(Window { before: usize::MAX, after: d.below(e.kv_len) })),
    ("prefix", |d, e| Box::new(Prefix { len: d.below(e.kv_len + 2) })),
    ("first", |d, e| Box::new(First { count: d.below(e.kv_len + 2) })),
    ("document", |d, e| Box::new(Document::new(ids(d, e)))),
    ("document_per_batch", |d, e| {
        Box::new(Document::per_batch((0..e.batch).map(|_| ids(d, e)).collect::<Vec<_>>()))
    }),
    ("permutation", |d, e| Box::new(Permutation::new(order(d, e)))),
    ("permutation_query", |d, e| {
        let given = d.below(e.q_len.min(e.kv_len) + 1) / 3;
        Box::new(Permutation::new(order(d, e)).query(true).given(given))
    }),
    ("permutation_per_batch", |d, e| {
        let orders: Vec<_> = (0..e.batch).map(|_| order(d, e)).collect();
        Box::new(Permutation::per_batch(orders).query(true))
    }),
    ("key_lengths", |d, e| Box::new(key_lengths(d, e))),
    ("blocks", |d, e| Box::new(blocks(d, e, 1))),
    ("blocks_per_head", |d, e| Box::new(blocks(d, e, e.heads))),
    ("mask", |d, e| Box::new(mask(d, e, [false, false, true, true]))),
    ("mask_of_keys", |d, e| Box::new(mask(d, e, [true, true, false, true]))),
    ("mask_of_queries", |d, e| Box::new(mask(d, e, [false, true, true, false]))),
    ("mask_of_all", |d, e| Box::new(mask(d, e, [true, true, true, true]))),
    ("dilated", |d, e| {
        let Window { before, after } = window(d, e);
        Box::new(Dilated { before, after, step: 1 + d.below(9) })
    }),
    ("strided", |d, _| Box::new(strided(d, true))),
    ("strided_both_ways", |d, _| Box::new(strided(d, false))),
    ("fixed", |d, _| Box::new(fixed(d, true))),
    ("fixed_both_ways", |d, _| Box::new(fixed(d, false))),
    ("global", |d, e| Box::new(Global { tokens: tokens(d, e).into() })),
    ("longformer", |d, e| Box::new(Longformer { window: d.below(90), global: tokens(d, e).into() })),
    ("random", |d, e| {
        let block = 1 + d.below(70);
        Box::new(Random { block, count: d.below(e.kv_len.div_ceil(block) + 1).min(5), seed: d.bits() })
    }),
    ("bigbird", |d, e| Box::new(bigbird(d, e))),
    ("bigbird_ends", |d, e| Box::new(bigbird(d, e).first_and_last())),
    ("bigbird_lists", |d, e| {
        let Blocks { block, layout } = blocks(d, e, e.heads);
        Box::new(BigBird { block, window: 3, global: 1, random: 0, seed: 0 }.with_lists(layout))
    }),
    ("and_strided", |d, e| Box::new(And(strided(d, true), key_lengths(d, e)))),
    ("predicate", |d, _| {
        let (a, b) = (1 + d.below(7), 1 + d.below(9));
        Box::new(Predicate::new(move |site, i, j| (a * i + b * j + 3 * site.head + 5 * site.batch) % 11 < 4))
    }),
    ("pair_predicate", |d, _| {
        let step = 1 + d.below(9);
        Box::new(PairPredicate::new(move |i, j| j % step == i % step))
    }),
    ("one_key_a_row", |d, e| {
        let (shift, keys) = (d.below(97), e.kv_len);
        Box::new(PairPredicate::new(move |i, j| j == (31 * i + shift) % keys))
    }),
    ("nothing", |_, _| Box::new(Not(Full))),
    ("and", |d, e| Box::new(And(Causal, window(d, e)))),
    ("and_lengths", |d, e| Box::new(And(Causal, key_lengths(d, e)))),
    ("and_document", |d, e| Box::new(And(Causal, Document::new(ids(d, e))))),
    ("or", |d, e| Box::new(Or(window(d, e), Prefix { len: d.below(9) }))),
    ("not", |d, e| Box::new(Not(window(d, e)))),
    ("not_blocks", |d, e| Box::new(And(Not(blocks(d, e, e.heads)), Not(Document::new(ids(d, e)))))),
];

/// A pattern that knows how it was drawn.
#[derive(Clone)]
pub struct Picked {
    from: String,
    pattern: Arc<dyn Pattern>,
}

/// The pattern of this name with the parameters of this seed.
pub fn picked(name: &str, extent: &Extent, seed: u64) -> Picked {
    let (_, make) = PATTERNS.iter().find(|entry| entry.0 == name).expect("a name of the list");
    let pattern: Arc<dyn Pattern> = make(&mut Draw::new(seed, 7), extent).into();
    pattern.check(extent).expect("valid parameters");
    Picked { from: format!("picked({name:?}, extent, {seed}) "), pattern }
}

impl Picked {
    /// The pattern.
    pub fn as_dyn(&self) -> &dyn Pattern {
        &*self.pattern
    }
}

impl<P: Pattern + 'static> From<P> for Picked {
    fn from(pattern: P) -> Self {
        Self { from: String::new(), pattern: Arc::new(pattern) }
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long lists come from the name and the seed.
        let text: String = format!("{:?}", self.pattern).chars().take(100).collect();
        write!(f, "{}{text}", self.from)
    }
}

fn window(d: &mut Draw, e: &Extent) -> Window {
    let end = |d: &mut Draw| match d.below(4) {
        0 => 0,
        1 => d.below(4),
        2 => d.below(e.kv_len),
        _ => d.below(64).min(e.kv_len),
    };
    Window { before: end(d), after: end(d) }
}

fn strided(d: &mut Draw, causal: bool) -> Strided {
    let part = d.pick(&[StridedPart::Local, StridedPart::Column, StridedPart::Both, StridedPart::Both]);
    Strided { stride: 1 + d.below(70), part, causal }
}

fn fixed(d: &mut Draw, causal: bool) -> Fixed {
    let part = d.pick(&[FixedPart::Block, FixedPart::Summary, FixedPart::Both, FixedPart::Both]);
    let stride = 1 + d.below(70);
    Fixed { stride, summary: 1 + d.below(stride.min(6)), part, causal }
}

/// Up to 8 positions, ascending.
fn tokens(d: &mut Draw, e: &Extent) -> Vec<usize> {
    let mut tokens: Vec<_> = (0..d.below(9)).map(|_| d.below(e.kv_len)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

fn bigbird(d: &mut Draw, e: &Extent) -> BigBird {
    let (block, window, global) = (1 + d.below(40), d.pick(&[1, 3, 5]), d.below(3));
    let random = e.kv_len.div_ceil(block).saturating_sub(window + global).min(d.below(4));
    BigBird { block, window, global, random, seed: d.bits() }
}

/// Documents of random lengths; one in three comes back later.
fn ids(d: &mut Draw, e: &Extent) -> Vec<u32> {
    let mut ids = Vec::with_capacity(e.kv_len);
    let longest = 1 + d.below(2 * e.kv_len);
    while ids.len() < e.kv_len {
        let id = d.below(3 + ids.len() / 16) as u32;
        let len = (1 + d.below(longest)).min(e.kv_len - ids.len());
        ids.extend(std::iter::repeat_n(id, len));
    }
    ids
}

/// Each position once.
fn order(d: &mut Draw, e: &Extent) -> Vec<u32> {
    let mut order: Vec<u32> = (0..e.q_len.min(e.kv_len) as u32).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, d.below(n + 1));
    }
    order
}

fn key_lengths(d: &mut Draw, e: &Extent) -> KeyLengths {
    let lengths = (0..e.batch).map(|_| if d.once_in(5) { 0 } else { d.below(e.kv_len + 1) });
    KeyLengths { lengths: lengths.collect() }
}

fn blocks(d: &mut Draw, e: &Extent, heads: usize) -> Blocks {
    let block = d.pick(&[1, 5, 16, 33, 64, 100]);
    let sizes = [heads, e.q_len.div_ceil(block), e.kv_len.div_ceil(block)];
    let cells: Vec<_> = (0..sizes.iter().product()).map(|_| d.once_in(3)).collect();
    Blocks { block, layout: BlockLayout::new(sizes, cells).expect("as many cells as the sizes say") }
}

/// One in `rare` is set, along the axes that are not shared.
fn mask(d: &mut Draw, e: &Extent, own: [bool; 4]) -> Mask {
    let all = [e.batch, e.heads, e.q_len, e.kv_len];
    let sizes = std::array::from_fn(|axis| if own[axis] { all[axis] } else { 1 });
    let rare = d.pick(&[2, 3, 20]);
    let values: Vec<_> = (0..sizes.iter().product()).map(|_| d.once_in(rare)).collect();
    Mask::new(sizes, values).expect("as many values as the sizes say")
}
