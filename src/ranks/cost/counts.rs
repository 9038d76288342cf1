//! What all ranks meet, and what they send each other.

use super::common::Common;
use super::meet::{Meetings, Met};
use super::time::{self, Handed, Load, Step};
use super::{Machine, PassCost, RankCost, Travel};
use crate::mask::{BlockGrid, BlockMask};
use crate::ranks::row_bytes::{Pass, RowBytes};
use crate::ranks::{Assignment, HandOn, source, target};
use crate::{Attention, AttentionShape, ElementType};
use rayon::prelude::*;

/// What all ranks meet.
pub(super) struct Counts<'a> {
    queries: &'a Assignment,
    keys: &'a Assignment,
    pub(super) ranks: usize,
    meetings: Meetings<'a>,
    /// The rank of each stretch of keys, and whether all ranks get it.
    stretches: Vec<(u32, bool)>,
    common: Common,
    /// What the queries that travel meet in the keys of each rank.
    asked: Vec<Met>,
    /// Keys that a rank gets of each: [receiver, holder].
    received: Vec<u32>,
    /// The same from the other side: [holder, receiver].
    sent: Vec<u32>,
    grid: &'a BlockGrid,
}

/// What the queries of a rank meet that do not travel.
struct Own {
    /// By the rank that holds the keys.
    by_rank: Vec<Met>,
    /// Keys that all ranks get.
    common: Met,
}

impl<'a> Counts<'a> {
    pub(super) fn new(
        attention: &Attention,
        mask: &'a BlockMask,
        [queries, keys]: [&'a Assignment; 2],
        travel: Travel,
    ) -> Self {
        let (grid, ranks) = (mask.grid(), queries.ranks());
        let common = match travel {
            Travel::Shared => Common::new(attention, mask, [queries, keys]),
            Travel::Needed | Travel::Shards => Common::none(ranks),
        };
        let stretches = common.stretches(keys, grid);
        let starts = stretches.iter().map(|it| it.0).chain([grid.k_blocks()]).collect();
        let stretches: Vec<_> = stretches.into_iter().map(|(_, holder, common)| (holder, common)).collect();
        let meetings = Meetings::new(mask, starts);
        let mut asked = vec![Met::default(); ranks];
        let met = meetings.of(common.q_blocks.iter().flatten().copied());
        met.into_iter().zip(&stretches).for_each(|(met, &(holder, _))| asked[holder as usize].add(met));
        let [received, sent] = [Vec::new(), Vec::new()];
        let counts = Self { queries, keys, ranks, meetings, stretches, common, asked, received, sent, grid };
        let mut received = vec![0; ranks * ranks];
        received.par_chunks_exact_mut(ranks).enumerate().for_each(|(rank, row)| match travel {
            Travel::Needed | Travel::Shared => {
                let met = counts.met(&counts.staying(rank)).by_rank;
                row.iter_mut().zip(met).for_each(|(keys, met)| *keys = met.keys as u32);
            }
            // A rank without queries computes nothing, but hands on all the same.
            Travel::Shards => row.iter_mut().enumerate().for_each(|(of, held)| *held = keys.count(of) as u32),
        });
        Self { sent: transposed(&received, ranks), received, ..counts }
    }

    /// The blocks of a rank's queries that do not travel.
    fn staying(&self, rank: usize) -> Vec<usize> {
        let travelling = &self.common.q_blocks[rank];
        let blocks = time::blocks(self.queries.rows(rank), self.grid.block_q);
        blocks.filter(|block| travelling.binary_search(block).is_err()).collect()
    }

    /// What blocks of queries meet in the keys of each rank.
    fn met(&self, blocks: &[usize]) -> Own {
        let mut own = Own { by_rank: vec![Met::default(); self.ranks], common: Met::default() };
        for (met, &(holder, common)) in
            self.meetings.of(blocks.iter().copied()).into_iter().zip(&self.stretches)
        {
            if common { own.common.add(met) } else { own.by_rank[holder as usize].add(met) }
        }
        own
    }

    /// Seconds that rows take to all ranks, and results back to their owners: each round as long as its longest message.
    pub(super) fn tree_s(&self, attention: &Attention, pass: Pass, machine: &Machine) -> [f64; 2] {
        let bytes = RowBytes::new(attention, pass);
        let handed: Vec<Vec<Handed>> = match self.common.is_empty() {
            true => vec![],
            false => (0..self.ranks).into_par_iter().map(|rank| self.common.handed(rank)).collect(),
        };
        [Handed::there, Handed::back].map(|way: fn(&Handed, &RowBytes) -> [u64; 2]| {
            let longest = |round: usize| {
                let messages = handed.iter().map(|rounds| machine.message_s(way(&rounds[round], &bytes)[0]));
                messages.fold(0.0, f64::max)
            };
            if handed.is_empty() { 0.0 } else { (0..HandOn::count(self.ranks)).map(longest).sum() }
        })
    }

    /// `tree_s` of both passes comes as `slowest`.
    pub(super) fn rank(
        &self,
        rank: usize,
        attention: &Attention,
        slowest: [[f64; 2]; 2],
        machine: &Machine,
    ) -> RankCost {
        let area = (self.grid.block_q * self.grid.block_k) as u64;
        let (staying, ranks) = (self.staying(rank), self.ranks);
        let halves = if self.common.is_empty() { [&staying[..], &[]] } else { time::halves(&staying) };
        let [mut met, second] = halves.map(|blocks| self.met(blocks));
        let own = [met.by_rank[rank], second.by_rank[rank]].map(|half| half.visited * area);
        met.by_rank.iter_mut().zip(second.by_rank).for_each(|(sum, half)| sum.add(half));
        met.common.add(second.common);
        let [received, sent] = [&self.received, &self.sent].map(|table| &table[rank * ranks..][..ranks]);
        let steps = (0..ranks).map(|step| {
            let (from, to) = (source(rank, step, ranks), target(rank, step, ranks));
            let [received, sent] =
                [received[from], sent[to]].map(|keys| if step == 0 { 0 } else { u64::from(keys) });
            Step { visited: met.by_rank[from].visited * area, received, sent }
        });
        let load = Load {
            own,
            common: (met.common.visited + self.asked[rank].visited) * area,
            handed: if self.common.is_empty() { vec![] } else { self.common.handed(rank) },
            steps: steps.collect(),
        };
        let sum = |of: fn(&Met) -> u64| {
            of(&met.common) + of(&self.asked[rank]) + met.by_rank.iter().map(of).sum::<u64>()
        };
        let held = Held {
            queries: self.queries.count(rank) as u64,
            keys: self.keys.count(rank) as u64,
            common: [&self.common.queries, &self.common.keys].map(|rows| rows.iter().sum()),
        };
        let pass = |pass, slowest| {
            let memory_bytes = held.bytes(attention, pass, &load.steps);
            PassCost { memory_bytes, ..time::pass(&load, slowest, attention, pass, machine) }
        };
        RankCost {
            queries: held.queries as usize,
            keys: held.keys as usize,
            kept: sum(|met| met.kept),
            visited: sum(|met| met.visited) * area,
            forward: pass(Pass::Forward, slowest[0]),
            backward: pass(Pass::Backward, slowest[1]),
        }
    }
}

/// [b, a] of [a, b], in squares that fit the caches: column by column, nearly every access would miss them.
fn transposed(table: &[u32], ranks: usize) -> Vec<u32> {
    const SIDE: usize = 64;
    let mut turned = vec![0; table.len()];
    turned.par_chunks_mut(SIDE * ranks).enumerate().for_each(|(square, rows)| {
        for first in (0..ranks).step_by(SIDE) {
            for (row, turned) in rows.chunks_exact_mut(ranks).enumerate() {
                for (column, turned) in turned.iter_mut().enumerate().skip(first).take(SIDE) {
                    *turned = table[column * ranks + square * SIDE + row];
                }
            }
        }
    });
    turned
}

/// What a rank holds all the time.
struct Held {
    queries: u64,
    keys: u64,
    /// Queries and keys that all ranks get.
    common: [u64; 2],
}

impl Held {
    /// Bytes of its tensors and states (m, l), and of the keys of two steps: those of one are worked on while the next one's travel.
    fn bytes(&self, attention: &Attention, pass: Pass, steps: &[Step]) -> u64 {
        let Attention { shape, storage, .. } = attention;
        let AttentionShape { batch, heads, kv_heads, head_dim, value_dim, .. } = *shape;
        let size = |element: ElementType| element.size_bytes() as u64;
        let (query_rows, key_rows) = ((batch * heads) as u64, (batch * kv_heads) as u64);
        let (d, dv) = (head_dim as u64, value_dim as u64);
        let query = query_rows * (d * size(storage.q) + dv * size(storage.out) + 2 * size(ElementType::F32));
        let key = key_rows * (d + dv) * size(storage.kv);
        // The gradient of out and the sums of dq; those of dk and dv.
        let (query_gradient, key_gradient) = match pass {
            Pass::Forward => (0, 0),
            Pass::Backward => (query_rows * (dv * size(storage.out) + d * 4), key_rows * (d + dv) * 4),
        };
        let in_flight = steps.windows(2).map(|two| two[0].received + two[1].received).max().unwrap_or(0);
        let bytes = RowBytes::new(attention, pass);
        let [queries, keys] = self.common;
        let common = queries * (bytes.query + bytes.query_back) + keys * (bytes.key + bytes.key_back);
        common + self.queries * (query + query_gradient) + (self.keys + in_flight) * (key + key_gradient)
    }
}
