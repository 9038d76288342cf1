//! The flow between the blocks of a listing, and its loops: the place of a block says little, since one compiler lays the end of a
//! loop out before its beginning.

use std::collections::{BTreeMap, BTreeSet};

use crate::assembly::Item;

/// A block: its items, and the blocks that may follow.
#[derive(Debug, Default)]
struct Block {
    items: Vec<usize>,
    next: Vec<usize>,
}

/// A loop: the item that it begins with, and all of its items, those of loops inside it too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// The first item.
    pub(crate) first: usize,
    /// All.
    pub(crate) items: BTreeSet<usize>,
}

/// The loops of a listing, in order: each begins with a block that all ways into it pass, and to which some block of it leads back.
pub(crate) fn cycles(items: &[Item]) -> Vec<Cycle> {
    let blocks = blocks(items);
    let order = order(&blocks);
    let before = before(&blocks, &order);
    let passes = passes(&order, &before);
    let mut bodies: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for &block in &order {
        for &head in blocks[block].next.iter().filter(|head| is_passed(&passes, block, **head)) {
            let body = bodies.entry(head).or_insert_with(|| [head].into());
            // Backwards from the block that leads back, up to the head.
            let mut open = vec![block];
            while let Some(one) = open.pop() {
                if body.insert(one) {
                    open.extend(before[one].iter().copied());
                }
            }
        }
    }
    let items_of =
        |body: &BTreeSet<usize>| body.iter().flat_map(|&block| blocks[block].items.clone()).collect();
    let mut found: Vec<Cycle> = bodies
        .iter()
        .filter_map(|(&head, body)| {
            Some(Cycle { first: *blocks[head].items.first()?, items: items_of(body) })
        })
        .collect();
    found.sort_by_key(|cycle| cycle.first);
    found
}

/// The items of a loop's own, those of the loops inside it left out, along the way round it that has the fewest of them.
pub(crate) fn shortest_round(items: &[Item], cycle: &Cycle, inside: &[&Cycle]) -> BTreeSet<usize> {
    let blocks = blocks(items);
    let first = |block: usize| blocks[block].items.first().copied();
    let is_in = |block: usize, cycle: &Cycle| first(block).is_some_and(|item| cycle.items.contains(&item));
    let is_own = |block: usize| !inside.iter().any(|inner| is_in(block, inner));
    let length = |block: usize| if is_own(block) { blocks[block].items.len() } else { 0 };
    let all: Vec<usize> = (0..blocks.len()).filter(|&block| is_in(block, cycle)).collect();
    let Some(head) = all.iter().copied().find(|&block| first(block) == Some(cycle.first)) else {
        return BTreeSet::new();
    };
    // The shortest way to each block, and the block before it there.
    let mut ways: BTreeMap<usize, (usize, usize)> = [(head, (length(head), head))].into();
    loop {
        let mut changed = false;
        for &block in &all {
            let Some(&(so_far, _)) = ways.get(&block) else { continue };
            for &next in blocks[block].next.iter().filter(|next| **next != head && is_in(**next, cycle)) {
                let way = so_far + length(next);
                if ways.get(&next).is_none_or(|(known, _)| way < *known) {
                    ways.insert(next, (way, block));
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    let leads_back = ways.iter().filter(|(block, _)| blocks[**block].next.contains(&head));
    let mut found = BTreeSet::new();
    let mut at = leads_back.min_by_key(|(_, (way, _))| *way).map(|(block, _)| *block);
    while let Some(block) = at {
        if is_own(block) {
            found.extend(blocks[block].items.iter().copied());
        }
        at = Some(ways[&block].1).filter(|before| *before != block);
    }
    found
}

/// Cuts a listing at its places and behind its branches.
fn blocks(items: &[Item]) -> Vec<Block> {
    let mut blocks = vec![Block::default()];
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut leads: Vec<(usize, &str)> = Vec::new();
    // Whether the block before goes on into the next one.
    let mut goes_on = true;
    let mut ended = false;
    for (at, item) in items.iter().enumerate() {
        if ended || (matches!(item, Item::Place(_)) && !blocks[blocks.len() - 1].items.is_empty()) {
            let last = blocks.len() - 1;
            if goes_on {
                blocks[last].next.push(last + 1);
            }
            blocks.push(Block::default());
            (goes_on, ended) = (true, false);
        }
        let last = blocks.len() - 1;
        blocks[last].items.push(at);
        match item {
            Item::Place(name) => drop(places.insert(name, last)),
            Item::Instruction { to: Some(to), .. } => {
                leads.push((last, to));
                ended = true;
            }
            Item::Instruction { .. } => {}
            Item::Jump(to) => {
                leads.extend(to.as_deref().map(|to| (last, to)));
                (goes_on, ended) = (false, true);
            }
        }
    }
    for (block, to) in leads {
        blocks[block].next.extend(places.get(to));
    }
    blocks
}

/// The blocks that can be reached, each before those that follow it, but for ways back.
fn order(blocks: &[Block]) -> Vec<usize> {
    let mut seen: BTreeSet<usize> = [0].into();
    let mut done = Vec::new();
    let mut open = vec![(0, 0)];
    while let Some((block, child)) = open.pop() {
        match blocks[block].next.get(child) {
            Some(&next) => {
                open.push((block, child + 1));
                if seen.insert(next) {
                    open.push((next, 0));
                }
            }
            None => done.push(block),
        }
    }
    done.reverse();
    done
}

/// The blocks that lead to each.
fn before(blocks: &[Block], order: &[usize]) -> Vec<Vec<usize>> {
    let mut before = vec![Vec::new(); blocks.len()];
    for &block in order {
        blocks[block].next.iter().for_each(|&next| before[next].push(block));
    }
    before
}

/// For each block the last one that all ways to it pass; itself for the first.
fn passes(order: &[usize], before: &[Vec<usize>]) -> BTreeMap<usize, usize> {
    let rank: BTreeMap<usize, usize> = order.iter().enumerate().map(|(rank, &block)| (block, rank)).collect();
    let mut passes: BTreeMap<usize, usize> = [(0, 0)].into();
    let common = |passes: &BTreeMap<usize, usize>, mut one: usize, mut other: usize| {
        while one != other {
            if rank[&one] > rank[&other] { one = passes[&one] } else { other = passes[&other] }
        }
        one
    };
    loop {
        let mut changed = false;
        for &block in &order[1..] {
            let known = before[block].iter().copied().filter(|one| passes.contains_key(one));
            let last = known.reduce(|one, other| common(&passes, one, other));
            changed |= last.is_some_and(|last| passes.insert(block, last) != Some(last));
        }
        if !changed {
            return passes;
        }
    }
}

/// Whether all ways to a block pass another one.
fn is_passed(passes: &BTreeMap<usize, usize>, mut block: usize, head: usize) -> bool {
    while block != head {
        let above = passes[&block];
        if above == block {
            return false;
        }
        block = above;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assembly::Kind;

    fn place(name: &str) -> Item {
        Item::Place(name.into())
    }

    fn branch(to: &str) -> Item {
        Item::Instruction { kind: Kind::Branch, times: 1, to: Some(to.into()) }
    }

    fn jump(to: &str) -> Item {
        Item::Jump(Some(to.into()))
    }

    /// The items of each loop.
    fn found(items: &[Item]) -> Vec<Vec<usize>> {
        cycles(items).into_iter().map(|cycle| cycle.items.into_iter().collect()).collect()
    }

    #[test]
    fn loops_nest() {
        let items = [place("a"), place("b"), branch("b"), branch("a"), Item::Jump(None)];
        assert_eq!(found(&items), [vec![0, 1, 2, 3], vec![1, 2]]);
    }

    #[test]
    fn a_jump_back_over_what_is_laid_out_early_is_no_loop() {
        // The end of the loop at `head` is laid out before it, and reached by a jump back.
        let items = [
            jump("head"),
            place("end"),
            branch("head"),
            Item::Jump(None),
            place("head"),
            branch("out"),
            jump("end"),
            place("out"),
        ];
        assert_eq!(found(&items), [vec![1, 2, 4, 5, 6]]);
        // What begins it is what all ways into it pass, wherever it lies.
        assert_eq!(cycles(&items)[0].first, 4);
    }

    #[test]
    fn the_shortest_round_leaves_out_what_a_branch_leads_past() {
        let items = [
            place("a"),
            branch("past"),
            place("rare"),
            branch("rare-too"),
            place("rare-too"),
            place("past"),
            place("inner"),
            branch("inner"),
            place("end"),
            branch("a"),
        ];
        let cycles = cycles(&items);
        let [outer, inner] = &cycles[..] else { panic!("two loops") };
        assert_eq!((outer.first, inner.first), (0, 6));
        let round: Vec<_> = shortest_round(&items, outer, &[inner]).into_iter().collect();
        assert_eq!(round, [0, 1, 5, 8, 9]);
        assert_eq!(shortest_round(&items, inner, &[]), inner.items);
    }

    #[test]
    fn what_is_left_by_a_jump_is_no_part() {
        let items = [place("a"), branch("b"), jump("out"), place("b"), branch("a"), place("out")];
        assert_eq!(found(&items), [vec![0, 1, 3, 4]]);
        assert!(found(&[place("a"), jump("b"), place("b")]).is_empty());
        assert!(found(&[]).is_empty());
    }
}
