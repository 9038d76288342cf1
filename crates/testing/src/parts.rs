use super::{Case, Draw};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use wgpu_attention::pattern::Identity;
use wgpu_attention::{BlockGrid, BlockMask, Part, Parts, Pattern, Site, Varies};

/// How a set of pairs is cut into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// One part, in natural order.
    Whole,
    /// Two parts: keys before and behind a random one.
    Keys,
    /// Three parts, pairs dealt out at random.
    Pairs,
    /// Two parts, of which the first has no pair at all.
    EmptyFirst,
    /// One part whose keys are permuted.
    KeysPermuted,
    /// A natural part; one of some queries and some keys, both in a random order; one of other queries in a random order.
    Gathers,
}

impl Cut {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Whole, Self::Keys, Self::Pairs, Self::EmptyFirst, Self::KeysPermuted, Self::Gathers];
}

/// The parts of a case under a cut, each with the case's blocks. Their union is the case's pattern.
pub fn cut(case: &Case, cut: Cut, seed: u64) -> Parts {
    let mut draw = Draw::new(seed, 13);
    let (q_len, kv_len) = (case.attention.shape.q_len, case.attention.shape.kv_len);
    let deal = move |parts: u64| move |i, j| Draw::new(seed, (i * kv_len + j) as u64).bits() % parts;
    let parts = match cut {
        Cut::Whole => vec![part(case, None, None, |_, _| true)],
        Cut::Keys => {
            let at = draw.below(kv_len + 1);
            vec![part(case, None, None, move |_, j| j < at), part(case, None, None, move |_, j| j >= at)]
        }
        Cut::Pairs => (0..3).map(|n| part(case, None, None, move |i, j| deal(3)(i, j) == n)).collect(),
        Cut::EmptyFirst => vec![part(case, None, None, |_, _| false), part(case, None, None, |_, _| true)],
        Cut::KeysPermuted => vec![part(case, None, Some(draw.permutation(kv_len)), |_, _| true)],
        Cut::Gathers => {
            let mut some = |len: usize| {
                let mut order = draw.permutation(len);
                order.truncate(1 + draw.below(len));
                order
            };
            let (q1, k1, q2) = (some(q_len), some(kv_len), some(q_len));
            let (in_q1, in_k1, in_q2) = (members(&q1, q_len), members(&k1, kv_len), members(&q2, q_len));
            let owner = move |i: usize, j: usize| match () {
                () if in_q1[i] && in_k1[j] => 1,
                () if in_q2[i] && deal(2)(i, j) == 1 => 2,
                () => 0,
            };
            let owned = |n| {
                let owner = owner.clone();
                move |i, j| owner(i, j) == n
            };
            vec![
                part(case, None, None, owned(0)),
                part(case, Some(q1), Some(k1), owned(1)),
                part(case, Some(q2), None, owned(2)),
            ]
        }
    };
    Parts::new(parts, case.grid().extent()).unwrap_or_else(|e| panic!("{e}\n{case}"))
}

fn members(list: &[u32], len: usize) -> Vec<bool> {
    let mut members = vec![false; len];
    list.iter().for_each(|&n| members[n as usize] = true);
    members
}

/// The pairs of the case that `own` claims, in these orders.
fn part(
    case: &Case,
    q_order: Option<Vec<u32>>,
    k_order: Option<Vec<u32>>,
    own: impl Fn(usize, usize) -> bool + Send + Sync + 'static,
) -> Part {
    let grid = case.grid();
    let (q_order, k_order) = (q_order.map(Arc::from), k_order.map(Arc::from));
    let len = |order: &Option<Arc<[u32]>>, all| order.as_ref().map_or(all, |order| order.len());
    let grid = BlockGrid { q_len: len(&q_order, grid.q_len), kv_len: len(&k_order, grid.kv_len), ..grid };
    let placed =
        Placed { case: case.clone(), q_order: q_order.clone(), k_order: k_order.clone(), own: Arc::new(own) };
    let mask = BlockMask::new(&placed, grid).unwrap_or_else(|e| panic!("{e}\n{case}"));
    Part { mask, q_order, k_order }
}

/// A pattern over places instead of positions.
#[derive(Clone)]
struct Placed {
    case: Case,
    q_order: Option<Arc<[u32]>>,
    k_order: Option<Arc<[u32]>>,
    own: Arc<dyn Fn(usize, usize) -> bool + Send + Sync>,
}

/// By the closure: no two parts share one.
impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.own, &other.own)
    }
}

impl Eq for Placed {}

impl Hash for Placed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.own).hash(state);
    }
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a part of {}", self.case)
    }
}

impl Pattern for Placed {
    fn keep(&self, site: &Site, i: usize, j: usize) -> bool {
        let position = |order: &Option<Arc<[u32]>>, n| order.as_ref().map_or(n, |order| order[n] as usize);
        let (i, j) = (position(&self.q_order, i), position(&self.k_order, j));
        let site = Site { extent: self.case.attention.shape.extent(), ..*site };
        (self.own)(i, j) && self.case.pattern.as_dyn().keep(&site, i, j)
    }

    fn varies(&self) -> Varies {
        self.case.pattern.as_dyn().varies()
    }

    fn identity(&self) -> Identity<'_> {
        Identity::of(self)
    }
}
