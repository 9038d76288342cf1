//! That all ranks were given the same call, by the same version of the crate.

use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::pattern::{Fnv, fingerprint};
use crate::plan::Plan;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::traffic::Pass;
use wgpu_attention::{Attention, Pattern};

/// Bytes of the version and of what is printed of a pattern: longer ones are cut.
const TEXT: usize = 64;

/// Numbers that are compared, by their names.
const NAMES: [&str; 16] = [
    "batch",
    "heads",
    "kv_heads",
    "q_len",
    "kv_len",
    "head_dim",
    "value_dim",
    "the storage of q",
    "the storage of k and v",
    "block",
    "the score",
    "the assignment of queries",
    "the assignment of keys",
    "the time limit (ms)",
    "share",
    "pattern",
];

/// Bytes of a record without the number of stretches: of the same length in all versions that know this record.
const RECORD: usize = 2 * TEXT + 8 * NAMES.len();

/// What a rank was given, in as many bytes as it is for every call.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    /// Of the crate.
    version: [u8; TEXT],
    /// The beginning of what the pattern prints.
    pattern: [u8; TEXT],
    numbers: [u64; NAMES.len()],
}

impl Record {
    fn new(attention: &Attention, pattern: &dyn Pattern, plan: &Plan) -> Self {
        let shape = &attention.shape;
        let size = |size: usize| size as u64;
        let numbers = [
            size(shape.batch),
            size(shape.heads),
            size(shape.kv_heads),
            size(shape.q_len),
            size(shape.kv_len),
            size(shape.head_dim),
            size(shape.value_dim),
            Fnv::of(&attention.storage.q),
            Fnv::of(&attention.storage.kv),
            size(plan.block),
            Fnv::of(&attention.score),
            Fnv::of(&plan.queries),
            Fnv::of(&plan.keys),
            plan.limit.as_millis() as u64,
            u64::from(plan.share),
            fingerprint(pattern, shape.extent()),
        ];
        Self { version: cut(env!("CARGO_PKG_VERSION")), pattern: cut(&format!("{pattern:?}")), numbers }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.version);
        bytes.extend(self.pattern);
        bytes.extend(self.numbers.iter().flat_map(|number| number.to_le_bytes()));
    }

    fn read(bytes: &[u8]) -> Self {
        let text = |at: usize| std::array::from_fn(|n| bytes[at + n]);
        let numbers = std::array::from_fn(|n| number(&bytes[2 * TEXT + 8 * n..]));
        Self { version: text(0), pattern: text(TEXT), numbers }
    }

    /// The first thing that differs on another rank.
    fn compare(&self, other: &Self, rank: usize) -> Result<()> {
        let differs = |what: &str, here: String, there: String| {
            Err(Error::Differs { what: what.into(), rank, here, there })
        };
        if self.version != other.version {
            return differs("the crate's version", words(&self.version), words(&other.version));
        }
        let pairs = self.numbers.iter().zip(&other.numbers);
        let Some((name, (here, there))) = NAMES.iter().zip(pairs).find(|(_, (here, there))| here != there)
        else {
            return Ok(());
        };
        match *name {
            "pattern" => {
                let named = |text, hash| format!("{} ({hash:016x})", words(text));
                differs(name, named(&self.pattern, here), named(&other.pattern, there))
            }
            // Hashes say nothing to a reader, but which ranks agree.
            name if name.starts_with("the ") && !name.contains("limit") => {
                differs(name, format!("{here:016x}"), format!("{there:016x}"))
            }
            name => differs(name, here.to_string(), there.to_string()),
        }
    }
}

/// Rows that a rank would give to all: how many, in how many stretches; of queries, how many keys that saves.
pub(crate) type Offer = [u64; 3];

/// Bytes of an offer.
const OFFER: usize = 24;

/// Compares what all ranks were given; returns which queries each would let travel.
pub(crate) fn shake<X: Exchange>(
    session: &mut Session<X>,
    attention: &Attention,
    pattern: &dyn Pattern,
    plan: &Plan,
    offer: Offer,
) -> Result<Vec<Offer>> {
    let own = Record::new(attention, pattern, plan);
    let (rank, size) = (session.rank(), session.size());
    let others: Vec<usize> = (1..size).map(|step| (rank + step) % size).collect();
    let hello = |&to: &usize| {
        let mut bytes = content(RECORD + OFFER);
        own.write(&mut bytes);
        bytes.extend(offer.iter().flat_map(|number| number.to_le_bytes()));
        Outgoing { pass: Pass::Handshake, step: 0, to, bytes }
    };
    let due = |&from: &usize| Due { pass: Pass::Handshake, step: 0, from, bytes: RECORD + OFFER };
    session.start(others.iter().map(hello).collect(), others.iter().map(due).collect())?;
    let messages = session.finish()?;
    let mut offers = vec![offer; size];
    // All have come: the first rank that differs is named, the same one in each run.
    let mut by_rank: Vec<_> = others.iter().zip(&messages).collect();
    by_rank.sort_by_key(|(from, _)| **from);
    for (&from, message) in by_rank {
        let content = &message[HEADER_BYTES..];
        own.compare(&Record::read(content), from)?;
        offers[from] = std::array::from_fn(|n| number(&content[RECORD + 8 * n..]));
    }
    Ok(offers)
}

/// As much of a text as there is room for.
fn cut(text: &str) -> [u8; TEXT] {
    let mut bytes = [0; TEXT];
    bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn words(text: &[u8; TEXT]) -> String {
    String::from_utf8_lossy(text).trim_end_matches('\0').to_string()
}

/// 8 bytes as a number.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[n]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu_attention::{AttentionShape, Causal, Full};

    #[test]
    fn a_record_says_what_differs() {
        let shape = AttentionShape::new(1, 2, 100, 8);
        let plan = Plan::contiguous(&shape, 3).unwrap();
        let record = Record::new(&shape.into(), &Causal, &plan);
        let mut bytes = vec![];
        record.write(&mut bytes);
        assert_eq!((bytes.len(), Record::read(&bytes)), (RECORD, record.clone()));
        record.compare(&record, 1).unwrap();
        let said = |other: Record| record.compare(&other, 2).unwrap_err().to_string();
        let given = |shape: AttentionShape, plan: &Plan| Record::new(&shape.into(), &Causal, plan);
        assert_eq!(said(given(shape.kv_heads(1), &plan)), "kv_heads differs: 2 here, 1 on rank 2");
        assert!(
            said(given(shape, &Plan::zig_zag(&shape, 3).unwrap()))
                .contains("the assignment of queries differs")
        );
        assert!(said(Record::new(&shape.into(), &Full, &plan)).starts_with("pattern differs: Causal ("));
        let mut older = record.clone();
        older.version = cut("0.0.9");
        assert!(said(older).contains("the crate's version differs: "));
    }
}
