//! Rows that all ranks get, along the tree of [`HandOn`], and what comes back for them.

use crate::error::Result;
use crate::exchange::Exchange;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::traffic::Pass;
use wgpu_attention::ranks::HandOn;

/// Rows that came from all ranks: in the backward pass with what belongs to the queries.
pub(crate) struct Given<Q, KV> {
    pub(crate) q: Vec<Q>,
    pub(crate) k: Vec<KV>,
    pub(crate) v: Vec<KV>,
    pub(crate) out: Vec<f32>,
    pub(crate) state: Vec<f32>,
    pub(crate) dout: Vec<f32>,
}

/// What a rank made of the rows that all ranks got.
pub(crate) trait Rows {
    /// Bytes of what is for one owner.
    fn bytes(&self, owner: usize) -> usize;

    /// Writes what is for one owner.
    fn write(&self, owner: usize, bytes: &mut Vec<u8>);

    /// Adds what another rank has for an owner, taken off the bytes.
    fn add(&mut self, owner: usize, bytes: &mut &[u8]);
}

/// Brings what each rank gives to all; `bytes` of each owner. Returns it by owner.
pub(crate) fn spread<X: Exchange>(
    session: &mut Session<X>,
    own: Vec<u8>,
    bytes: &[usize],
) -> Result<Vec<Vec<u8>>> {
    let (rank, ranks) = (session.rank(), session.size());
    let mut has = vec![vec![]; ranks];
    has[rank] = own;
    for round in HandOn::rounds(rank, ranks) {
        let sent: usize = round.sent(ranks).map(|owner| bytes[owner]).sum();
        let came: usize = round.received(ranks).map(|owner| bytes[owner]).sum();
        let mut message = content(sent);
        round.sent(ranks).for_each(|owner| message.extend_from_slice(&has[owner]));
        let ends = [round.to, round.from];
        if let Some(message) = exchange(session, Pass::Spread, round.round, ends, message, came)? {
            let mut left = &message[HEADER_BYTES..];
            for owner in round.received(ranks) {
                let (own, rest) = left.split_at(bytes[owner]);
                (has[owner], left) = (own.to_vec(), rest);
            }
        }
    }
    Ok(has)
}

/// Brings results back to the owners: from the last round to the first, so that each rank adds what comes of the ranks behind it
/// before it sends the sum on. The order of the sum follows from the ranks' numbers alone.
pub(crate) fn collect<X: Exchange>(session: &mut Session<X>, results: &mut impl Rows) -> Result<()> {
    let (rank, ranks) = (session.rank(), session.size());
    for round in HandOn::rounds(rank, ranks).rev() {
        let mut message = content(round.received(ranks).map(|owner| results.bytes(owner)).sum());
        round.received(ranks).for_each(|owner| results.write(owner, &mut message));
        let came = round.sent(ranks).map(|owner| results.bytes(owner)).sum();
        let ends = [round.from, round.to];
        if let Some(message) = exchange(session, Pass::Collect, round.round, ends, message, came)? {
            let mut left = &message[HEADER_BYTES..];
            round.sent(ranks).for_each(|owner| results.add(owner, &mut left));
        }
    }
    Ok(())
}

/// One message each way, none where it would be empty.
fn exchange<X: Exchange>(
    session: &mut Session<X>,
    pass: Pass,
    step: usize,
    [to, from]: [usize; 2],
    message: Vec<u8>,
    bytes: usize,
) -> Result<Option<Vec<u8>>> {
    let send = (message.len() > HEADER_BYTES).then_some(Outgoing { pass, step, to, bytes: message });
    let due = (bytes > 0).then_some(Due { pass, step, from, bytes });
    if send.is_none() && due.is_none() {
        return Ok(None);
    }
    session.start(send.into_iter().collect(), due.into_iter().collect())?;
    Ok(session.finish()?.pop())
}
