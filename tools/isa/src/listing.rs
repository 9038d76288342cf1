//! What the instructions tell: the loops, and what they are made of.

use std::collections::BTreeMap;

use crate::assembly::{Item, Kind};
use crate::flow::{Cycle, cycles, shortest_round};

/// Fewer fma in a loop than this, and it is no hot loop.
const LEAST_FMA: u32 = 16;

/// Accesses to workgroup memory by their bytes per lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accesses(BTreeMap<u32, u32>);

impl Accesses {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.values().sum()
    }

    /// Bytes that they move for a lane.
    pub fn bytes(&self) -> u32 {
        self.0.iter().map(|(bytes, count)| bytes * count).sum()
    }
}

impl std::fmt::Display for Accesses {
    /// The widest first: `8 x 16 B, 1 x 4 B`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths: Vec<_> =
            self.0.iter().rev().map(|(bytes, count)| format!("{count} x {bytes} B")).collect();
        f.write_str(if widths.is_empty() { "0" } else { "" })?;
        f.write_str(&widths.join(", "))
    }
}

/// Counts of instructions by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mix {
    /// All.
    pub all: u32,
    /// Arithmetic for each lane; the two halves of a dual instruction count as two.
    pub vector: u32,
    /// Of these, fused multiply-adds.
    pub fma: u32,
    /// Of these, matrix products.
    pub matrix: u32,
    /// Loads from workgroup memory.
    pub loads: Accesses,
    /// Stores to it.
    pub stores: Accesses,
    /// Accesses to buffers.
    pub memory: u32,
    /// Accesses to what did not fit the registers.
    pub scratch: u32,
    /// Barriers.
    pub barriers: u32,
    /// Scalar instructions and waits.
    pub scalar: u32,
    /// Branches.
    pub branches: u32,
}

/// A loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// The place that it goes back to.
    pub place: String,
    /// What it is made of, loops inside it left out.
    pub own: Mix,
    /// Of that, what lies along the shortest way round it: branches are taken wherever that leaves more out, as masks are by a tile that
    /// has none.
    pub shortest: Mix,
    /// Whether no loop is inside it.
    pub innermost: bool,
    /// Whether it is a hot loop that is around all others: the one over tiles, of which a compiler has unrolled inner loops.
    pub around_all: bool,
}

impl Loop {
    /// The share of fma among the arithmetic that is no matrix product.
    pub fn fma_percent(&self) -> f64 {
        100.0 * f64::from(self.own.fma) / f64::from((self.own.vector - self.own.matrix).max(1))
    }
}

impl Mix {
    /// Counts an instruction.
    fn count(&mut self, kind: Kind, times: u32) {
        self.all += times;
        let number = match kind {
            Kind::Fma | Kind::Matrix | Kind::Vector => &mut self.vector,
            Kind::Scalar => &mut self.scalar,
            Kind::Load(bytes) => self.loads.0.entry(bytes).or_default(),
            Kind::Store(bytes) => self.stores.0.entry(bytes).or_default(),
            Kind::Memory => &mut self.memory,
            Kind::Scratch => &mut self.scratch,
            Kind::Branch => &mut self.branches,
            Kind::Barrier => &mut self.barriers,
        };
        *number += times;
        self.fma += if kind == Kind::Fma { times } else { 0 };
        self.matrix += if kind == Kind::Matrix { times } else { 0 };
    }

    /// Whether the loop does the arithmetic: matrix products, or enough fma.
    fn works(&self) -> bool {
        self.matrix > 0 || self.fma >= LEAST_FMA
    }
}

/// What a whole listing is made of.
pub fn whole<'a>(items: impl IntoIterator<Item = &'a Item>) -> Mix {
    let mut mix = Mix::default();
    for item in items {
        match item {
            Item::Instruction { kind, times, .. } => mix.count(*kind, *times),
            Item::Jump(_) => mix.count(Kind::Branch, 1),
            Item::Place(_) => {}
        }
    }
    mix
}

/// The loops that do the arithmetic, in order, and the smallest loop around all of them, unless it is one of them.
///
/// Of the innermost loops those with at least a quarter of the most fma. A loop around others counts where it has
/// half as many fma of its own: then a compiler has unrolled an inner loop, or the shader's text has its steps spelt out beside loops that stage.
pub fn hot_loops(items: &[Item]) -> (Vec<Loop>, Option<Loop>) {
    let cycles = cycles(items);
    let all = of_cycles(items, &cycles);
    let most_inside = all.iter().filter(|one| one.innermost).map(|one| one.own.fma).max().unwrap_or(0);
    let is_hot = |one: &Loop| {
        let enough = one.own.fma >= most_inside / if one.innermost { 4 } else { 2 };
        one.own.works() && (one.own.matrix > 0 || enough)
    };
    let hot: Vec<usize> = (0..all.len()).filter(|&at| is_hot(&all[at])).collect();
    let is_around = |at: &usize| hot.iter().all(|&one| cycles[one].items.is_subset(&cycles[*at].items));
    let around = (0..all.len()).filter(is_around).min_by_key(|&at| cycles[at].items.len());
    let around = around.filter(|_| !hot.is_empty());
    let told = |at: usize| Loop {
        around_all: !all[at].innermost && around == Some(at) && hot.contains(&at),
        ..all[at].clone()
    };
    (hot.iter().map(|&at| told(at)).collect(), around.filter(|at| !hot.contains(at)).map(told))
}

/// All loops of a listing, in order.
pub fn loops(items: &[Item]) -> Vec<Loop> {
    of_cycles(items, &cycles(items))
}

/// The loops of these cycles.
fn of_cycles(items: &[Item], cycles: &[Cycle]) -> Vec<Loop> {
    let is_inside = |outer: &Cycle, inner: &Cycle| outer != inner && inner.items.is_subset(&outer.items);
    let found = cycles.iter().map(|cycle| {
        let inside: Vec<_> = cycles.iter().filter(|other| is_inside(cycle, other)).collect();
        let own = cycle.items.iter().filter(|item| !inside.iter().any(|other| other.items.contains(item)));
        let place = match &items[cycle.first] {
            Item::Place(name) => name.clone(),
            Item::Instruction { .. } | Item::Jump(_) => String::new(),
        };
        let own = whole(own.map(|&at| &items[at]));
        let shortest = whole(shortest_round(items, cycle, &inside).into_iter().map(|at| &items[at]));
        Loop { place, own, shortest, innermost: inside.is_empty(), around_all: false }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place, instructions, and a branch to a place.
    fn block(name: &str, kinds: &[(Kind, u32)], to: Option<&str>) -> Vec<Item> {
        let place = [Item::Place(name.into())];
        let own = kinds.iter().map(|&(kind, times)| Item::Instruction { kind, times, to: None });
        let branch = to.map(|to| Item::Instruction { kind: Kind::Branch, times: 1, to: Some(to.into()) });
        place.into_iter().chain(own).chain(branch).collect()
    }

    /// A loop with a divergent loop and two working loops inside.
    fn nest() -> Vec<Item> {
        [
            block("0", &[(Kind::Vector, 1)], None),
            block("1", &[(Kind::Vector, 1), (Kind::Fma, 1), (Kind::Barrier, 1)], None),
            block("2", &[(Kind::Store(16), 1), (Kind::Vector, 1)], Some("2")),
            block(
                "3",
                &[(Kind::Load(16), 2), (Kind::Load(4), 1), (Kind::Fma, 16), (Kind::Scalar, 1)],
                Some("3"),
            ),
            block("4", &[(Kind::Matrix, 1), (Kind::Memory, 1), (Kind::Scratch, 2)], Some("4")),
            block("5", &[], Some("1")),
            block("6", &[(Kind::Scalar, 1)], Some("9")),
        ]
        .concat()
    }

    #[test]
    fn loops_are_found_with_what_is_their_own() {
        let all = loops(&nest());
        let names: Vec<_> = all.iter().map(|one| (one.place.as_str(), one.innermost)).collect();
        assert_eq!(names, [("1", false), ("2", true), ("3", true), ("4", true)]);
        let outer = Mix { all: 4, vector: 2, fma: 1, barriers: 1, branches: 1, ..Mix::default() };
        assert_eq!(all[0].own, outer);
        let loads = Accesses([(16, 2), (4, 1)].into());
        let working = Mix { all: 21, vector: 16, fma: 16, loads, scalar: 1, branches: 1, ..Mix::default() };
        assert_eq!(all[2].own, working);
        let matrix =
            Mix { all: 5, vector: 1, matrix: 1, memory: 1, scratch: 2, branches: 1, ..Mix::default() };
        assert_eq!(all[3].own, matrix);
        assert_eq!(whole(&nest()).fma, 17);
    }

    #[test]
    fn accesses_are_told_by_width() {
        let loads = &loops(&nest())[2].own.loads;
        assert_eq!((loads.count(), loads.bytes(), loads.to_string()), (3, 36, "2 x 16 B, 1 x 4 B".into()));
        assert_eq!(Accesses::default().to_string(), "0");
    }

    #[test]
    fn the_working_loops_are_hot() {
        let (hot, around) = hot_loops(&nest());
        assert_eq!(hot.iter().map(|one| one.place.as_str()).collect::<Vec<_>>(), ["3", "4"]);
        assert_eq!(around.map(|one| one.place), Some("1".into()));
        assert_eq!(hot[0].fma_percent(), 100.0);
    }

    #[test]
    fn an_unrolled_inner_loop_makes_the_outer_one_hot() {
        let listing = [
            block("1", &[(Kind::Fma, 100)], None),
            block("2", &[(Kind::Fma, 20)], Some("2")),
            block("3", &[], Some("1")),
        ]
        .concat();
        let (hot, around) = hot_loops(&listing);
        assert_eq!(around, None, "the loop around is one of them");
        assert_eq!(
            hot.iter().map(|one| (one.own.fma, one.around_all)).collect::<Vec<_>>(),
            [(100, true), (20, false)]
        );
        assert!(hot_loops(&block("0", &[(Kind::Fma, 100)], None)).0.is_empty());
    }

    #[test]
    fn steps_beside_a_loop_that_stages_make_the_loop_in_the_middle_hot() {
        let listing = [
            block("1", &[(Kind::Fma, 20)], None),
            block("2", &[(Kind::Fma, 100)], None),
            block("3", &[(Kind::Store(16), 1)], Some("3")),
            block("4", &[], Some("2")),
            block("5", &[(Kind::Fma, 100)], Some("5")),
            block("6", &[], Some("1")),
        ]
        .concat();
        let (hot, around) = hot_loops(&listing);
        assert_eq!(
            hot.iter().map(|one| (one.place.as_str(), one.around_all)).collect::<Vec<_>>(),
            [("2", false), ("5", false)]
        );
        assert_eq!(around.map(|one| (one.place, one.own.fma)), Some(("1".into(), 20)));
    }
}
