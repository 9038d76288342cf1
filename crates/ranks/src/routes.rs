//! Which rows go where: settled by the ranks together, once.

use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::handshake::{Offer, number};
use crate::plan::Plan;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::traffic::Pass;
use std::ops::Range;
use wgpu_attention::ranks::stretches::{self, count};
use wgpu_attention::ranks::{Assignment, Needs, Sharing, needs_of};
use wgpu_attention::{Attention, Pattern};

type Rows = Vec<Range<usize>>;

/// Who sends which rows to whom.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The keys that this rank's queries need of each other one, but for those that all ranks get.
    pub(crate) needs: Needs,
    /// Those of its keys that each other one needs, as places among its own.
    pub(crate) wanted: Vec<Rows>,
    /// Queries that all ranks get.
    pub(crate) queries: Common,
    /// Keys that all ranks get.
    pub(crate) keys: Common,
}

impl Routes {
    /// Whether there are rows that all ranks get.
    pub(crate) fn shares(&self) -> bool {
        self.queries.len() + self.keys.len() > 0
    }
}

/// Rows that all ranks get.
#[derive(Debug)]
pub(crate) struct Common {
    /// Their positions.
    pub(crate) rows: Rows,
    /// Those of each rank, as places among them.
    pub(crate) of: Vec<Rows>,
    /// This rank's, as places among its own rows.
    pub(crate) own: Rows,
}

impl Common {
    fn new(by_rank: &[Rows], assignment: &Assignment, rank: usize) -> Self {
        let mut rows: Rows = by_rank.iter().flatten().cloned().collect();
        rows.sort_unstable_by_key(|stretch| stretch.start);
        let of = by_rank.iter().map(|own| stretches::places(&rows, own)).collect();
        Self { of, own: stretches::places(assignment.rows(rank), &by_rank[rank]), rows }
    }

    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        count(&self.rows)
    }

    /// How many of them a rank holds.
    pub(crate) fn count(&self, rank: usize) -> usize {
        count(&self.of[rank])
    }
}

/// What the ranks settle, and with what.
pub(crate) struct Settling<'a, X> {
    pub(crate) session: &'a mut Session<X>,
    pub(crate) attention: &'a Attention,
    pub(crate) pattern: &'a dyn Pattern,
    pub(crate) plan: &'a Plan,
    pub(crate) sharing: Sharing,
}

impl<X: Exchange> Settling<'_, X> {
    /// All of it. `offered`: the queries that this rank would let travel; `offers`: what all ranks would.
    pub(crate) fn routes(&mut self, offered: Rows, offers: &[Offer]) -> Result<Routes> {
        let (rank, size, plan) = (self.session.rank(), self.session.size(), self.plan);
        let (rows, longer) = self.offered(offers)?;
        let saved = offers.iter().map(|offer| offer[2]).max().unwrap_or(0);
        let travel = self.sharing.take(rows, saved, longer);
        let offered = if travel { offered } else { vec![] };
        let staying = stretches::without(plan.queries.rows(rank), &offered);
        let needs =
            needs_of(self.pattern, self.attention.shape.extent(), &staying, &plan.keys, rank, plan.block)?;
        // Which queries travel, and how many stretches of keys each other rank is asked for.
        let announced: Vec<Vec<u64>> = (0..size)
            .map(|to| std::iter::once(needs.from(to).len() as u64).chain(ends(&offered)).collect())
            .collect();
        let lens: Vec<usize> = offers
            .iter()
            .map(|&[_, stretches, _]| 1 + if travel { 2 * stretches as usize } else { 0 })
            .collect();
        let came = self.numbers(Pass::Needs, 0, &announced, &lens)?;
        let mut queries = vec![vec![]; size];
        for (from, numbers) in came.iter().enumerate().filter(|(from, _)| *from != rank) {
            queries[from] = self.rows_of(from, &plan.queries, &numbers[1..])?;
        }
        queries[rank] = offered;
        let asked: Vec<u64> = came.iter().map(|numbers| numbers.first().copied().unwrap_or(0)).collect();
        let wanted = self.wanted(&needs, &asked)?;
        let keys = self.common_keys(&wanted)?;
        let all: Rows = sorted(keys.iter().flatten().cloned().collect());
        let (queries, keys) =
            (Common::new(&queries, &plan.queries, rank), Common::new(&keys, &plan.keys, rank));
        let wanted = wanted.iter().map(|wanted| stretches::without(wanted, &keys.own)).collect();
        Ok(Routes { needs: needs.without(&all), wanted, queries, keys })
    }

    /// How many rows all ranks offer, and the longer side of the call.
    fn offered(&self, offers: &[Offer]) -> Result<(usize, usize)> {
        let longer = self.plan.queries.len().max(self.plan.keys.len());
        for (from, &[rows, stretches, _]) in offers.iter().enumerate() {
            // No more stretches than rows: a wrong count asks for no memory.
            if stretches > rows || rows > longer as u64 {
                let need = format!("at most {longer} rows, and no more stretches");
                return Err(refused(from, need, format!("{rows} rows in {stretches} stretches")));
            }
        }
        Ok((offers.iter().map(|offer| offer[0] as usize).sum(), longer))
    }

    /// Numbers to each other rank, and from each: as many as `lens` says; no message for none.
    fn numbers(&mut self, pass: Pass, step: usize, to: &[Vec<u64>], lens: &[usize]) -> Result<Vec<Vec<u64>>> {
        let (rank, size) = (self.session.rank(), self.session.size());
        let send = |to_rank: usize| {
            let mut bytes = content(8 * to[to_rank].len());
            bytes.extend(to[to_rank].iter().flat_map(|number| number.to_le_bytes()));
            Outgoing { pass, step, to: to_rank, bytes }
        };
        let others = || (1..size).map(|step| (rank + step) % size);
        let from: Vec<usize> = others().filter(|&from| lens[from] > 0).collect();
        let due = from.iter().map(|&from| Due { pass, step, from, bytes: 8 * lens[from] });
        let sends = others().filter(|&other| !to[other].is_empty()).map(send);
        self.session.start(sends.collect(), due.collect())?;
        let mut came = vec![vec![]; size];
        for (from, message) in from.into_iter().zip(self.session.finish()?) {
            came[from] = message[HEADER_BYTES..].chunks_exact(8).map(number).collect();
        }
        Ok(came)
    }

    /// The rows that others need of this rank's keys.
    fn wanted(&mut self, needs: &Needs, asked: &[u64]) -> Result<Vec<Rows>> {
        let (rank, size) = (self.session.rank(), self.session.size());
        for (from, &count) in asked.iter().enumerate() {
            if count > self.plan.keys.count(rank) as u64 {
                let need = format!("at most {} stretches of keys", self.plan.keys.count(rank));
                return Err(refused(from, need, count.to_string()));
            }
        }
        let lists: Vec<Vec<u64>> = (0..size).map(|to| ends(needs.from(to)).collect()).collect();
        let lens: Vec<usize> = asked.iter().map(|&count| 2 * count as usize).collect();
        let came = self.numbers(Pass::Needs, 1, &lists, &lens)?;
        let places = |(from, numbers): (usize, &Vec<u64>)| {
            let rows = self.rows_from(from, rank, &self.plan.keys, numbers)?;
            Ok(stretches::places(self.plan.keys.rows(rank), &rows))
        };
        came.iter().enumerate().map(places).collect()
    }

    /// The keys that all ranks get, by the rank that holds them: those that enough others ask for.
    fn common_keys(&mut self, wanted: &[Rows]) -> Result<Vec<Rows>> {
        let (rank, size, plan) = (self.session.rank(), self.session.size(), self.plan);
        if !plan.share || !self.sharing.asked_for(size - 1) {
            return Ok(vec![vec![]; size]);
        }
        let own = asked_for(wanted, plan.keys.count(rank), |by| self.sharing.asked_for(by));
        let own = stretches::positions(plan.keys.rows(rank), own);
        let offer = [count(&own) as u64, own.len() as u64, 0];
        let came = self.numbers(Pass::Common, 0, &vec![offer[..2].to_vec(); size], &vec![2; size])?;
        let mut offers: Vec<Offer> = vec![offer; size];
        for (from, numbers) in came.iter().enumerate().filter(|(from, _)| *from != rank) {
            offers[from] = [numbers[0], numbers[1], 0];
        }
        let (rows, longer) = self.offered(&offers)?;
        if rows == 0 || !self.sharing.few(rows, longer) {
            return Ok(vec![vec![]; size]);
        }
        let lens: Vec<usize> = offers.iter().map(|&[_, stretches, _]| 2 * stretches as usize).collect();
        let came = self.numbers(Pass::Common, 1, &vec![ends(&own).collect(); size], &lens)?;
        let mut keys = vec![vec![]; size];
        for (from, numbers) in came.iter().enumerate().filter(|(from, _)| *from != rank) {
            keys[from] = self.rows_of(from, &plan.keys, numbers)?;
        }
        keys[rank] = own;
        Ok(keys)
    }

    /// Stretches of a rank's own rows, as it sent them.
    fn rows_of(&self, from: usize, rows: &Assignment, numbers: &[u64]) -> Result<Rows> {
        self.rows_from(from, from, rows, numbers)
    }

    /// Stretches of `holder`'s rows, as `from` sent them.
    fn rows_from(&self, from: usize, holder: usize, rows: &Assignment, numbers: &[u64]) -> Result<Rows> {
        let mut last = 0;
        let stretch = |ends: &[u64]| {
            let (start, end) = (ends[0] as usize, ends[1] as usize);
            let own = rows.rows(holder).iter().any(|own| own.start <= start && end <= own.end);
            if !own || start >= end || start < last {
                let need = format!("ascending rows of rank {holder}, {:?}", rows.rows(holder));
                return Err(refused(from, need, format!("a request for {start}..{end}")));
            }
            last = end;
            Ok(start..end)
        };
        numbers.chunks_exact(2).map(stretch).collect()
    }
}

/// Places that enough of the others want.
fn asked_for(wanted: &[Rows], len: usize, enough: impl Fn(usize) -> bool) -> Rows {
    let mut more = vec![0i64; len + 1];
    for stretch in wanted.iter().flatten() {
        more[stretch.start] += 1;
        more[stretch.end] -= 1;
    }
    let (mut by, mut places) = (0, Rows::new());
    for (place, more) in more[..len].iter().enumerate() {
        by += more;
        match places.last_mut() {
            _ if !enough(by as usize) => {}
            Some(last) if last.end == place => last.end += 1,
            _ => places.push(place..place + 1),
        }
    }
    places
}

fn ends(rows: &[Range<usize>]) -> impl Iterator<Item = u64> + '_ {
    rows.iter().flat_map(|stretch| [stretch.start as u64, stretch.end as u64])
}

fn sorted(mut rows: Rows) -> Rows {
    rows.sort_unstable_by_key(|stretch| stretch.start);
    rows
}

fn refused(rank: usize, need: String, got: String) -> Error {
    Error::Message { rank, during: "the handshake".into(), need, got }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_enough_ranks_want_is_common() {
        let wanted = [vec![0..4, 6..9], vec![2..8], vec![], vec![3..4, 6..7]];
        assert_eq!(asked_for(&wanted, 10, |by| by >= 2), [2..4, 6..8]);
        assert_eq!(asked_for(&wanted, 10, |by| by >= 3), [3..4, 6..7]);
        assert!(asked_for(&wanted, 10, |by| by >= 4).is_empty());
    }

    #[test]
    fn common_rows_have_places_with_all_and_with_their_owner() {
        let rows = Assignment::zig_zag(512, 64, 2).unwrap();
        assert_eq!(rows.rows(0), [0..128, 384..512]);
        let common = Common::new(&[vec![0..64, 500..512], vec![130..140]], &rows, 0);
        assert_eq!((common.len(), common.count(0), common.count(1)), (86, 76, 10));
        assert_eq!(common.of, [vec![0..64, 74..86], vec![64..74]]);
        assert_eq!(common.own, [0..64, 244..256]);
    }
}
