//! That all ranks were given the same call, by the same version of the crate.

use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::pattern::{Fnv, fingerprint};
use crate::plan::Plan;
use crate::session::{Due, HEADER_BYTES, Outgoing, Session, content};
use crate::traffic::Pass;
use std::ops::Range;
use wgpu_attention::ranks::Needs;
use wgpu_attention::{Attention, Pattern};

/// Bytes of the version and of what is printed of a pattern: longer ones are cut.
const TEXT: usize = 64;

/// Numbers that are compared, by their names.
const NAMES: [&str; 15] = [
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

/// Compares what all ranks were given; returns the rows that each other rank needs of this one's keys, as places.
pub(crate) fn shake<X: Exchange>(
    session: &mut Session<X>,
    attention: &Attention,
    pattern: &dyn Pattern,
    plan: &Plan,
    needs: &Needs,
) -> Result<Vec<Vec<Range<usize>>>> {
    let own = Record::new(attention, pattern, plan);
    let (rank, size) = (session.rank(), session.size());
    let others: Vec<usize> = (1..size).map(|step| (rank + step) % size).collect();
    let hello = |&to: &usize| {
        let mut bytes = content(RECORD + 8);
        own.write(&mut bytes);
        bytes.extend((needs.from(to).len() as u64).to_le_bytes());
        Outgoing { pass: Pass::Handshake, step: 0, to, bytes }
    };
    let due = |&from: &usize| Due { pass: Pass::Handshake, step: 0, from, bytes: RECORD + 8 };
    session.start(others.iter().map(hello).collect(), others.iter().map(due).collect())?;
    let messages = session.finish()?;
    let mut counts = vec![];
    // All have come: the first rank that differs is named, the same one in each run.
    let mut by_rank: Vec<_> = others.iter().zip(&messages).collect();
    by_rank.sort_by_key(|(from, _)| **from);
    for (&from, message) in by_rank {
        let content = &message[HEADER_BYTES..];
        own.compare(&Record::read(content), from)?;
        counts.push((from, number(&content[RECORD..])));
    }
    wanted(session, plan, needs, &counts)
}

/// The rows that others need.
fn wanted<X: Exchange>(
    session: &mut Session<X>,
    plan: &Plan,
    needs: &Needs,
    counts: &[(usize, u64)],
) -> Result<Vec<Vec<Range<usize>>>> {
    let (rank, size) = (session.rank(), session.size());
    let asked = (0..size).filter(|&to| to != rank && !needs.from(to).is_empty());
    let sends = asked.map(|to| {
        let mut bytes = content(16 * needs.from(to).len());
        let ends = needs.from(to).iter().flat_map(|keys| [keys.start, keys.end]);
        bytes.extend(ends.flat_map(|end| (end as u64).to_le_bytes()));
        Outgoing { pass: Pass::Needs, step: 0, to, bytes }
    });
    let asking: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
    let mut due = vec![];
    for &&(from, count) in &asking {
        // No more stretches than keys: a wrong count asks for no memory.
        if count > plan.keys.count(rank) as u64 {
            let need = format!("at most {} stretches of keys", plan.keys.count(rank));
            return Err(refused(from, need, count.to_string()));
        }
        due.push(Due { pass: Pass::Needs, step: 0, from, bytes: 16 * count as usize });
    }
    session.start(sends.collect(), due)?;
    let mut wanted = vec![vec![]; size];
    for (&(from, _), message) in asking.into_iter().zip(session.finish()?) {
        for ends in message[HEADER_BYTES..].chunks_exact(16) {
            let (start, end) = (number(ends) as usize, number(&ends[8..]) as usize);
            wanted[from].push(places(plan, rank, start..end).ok_or_else(|| {
                let need = format!("keys of rank {rank}, {:?}", plan.keys.rows(rank));
                refused(from, need, format!("a request for {start}..{end}"))
            })?);
        }
    }
    Ok(wanted)
}

/// The places of keys among those of a rank, if all are its own.
pub(crate) fn places(plan: &Plan, rank: usize, keys: Range<usize>) -> Option<Range<usize>> {
    let stretch = plan.keys.rows(rank).iter().find(|own| own.start <= keys.start && keys.end <= own.end)?;
    let first =
        plan.keys.place(rank, keys.start).filter(|_| keys.start < keys.end && keys.end <= stretch.end)?;
    Some(first..first + keys.len())
}

fn refused(rank: usize, need: String, got: String) -> Error {
    Error::Message { rank, during: "the handshake".into(), need, got }
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
fn number(bytes: &[u8]) -> u64 {
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

    #[test]
    fn only_own_keys_have_places() {
        let shape = AttentionShape::new(1, 1, 512, 8);
        let plan = Plan::zig_zag(&shape, 2).unwrap();
        assert_eq!(plan.keys.rows(0), [0..128, 384..512]);
        assert_eq!(places(&plan, 0, 400..512), Some(144..256));
        for wrong in [0..129, 128..130, 300..400, 500..513, 5..5] {
            assert_eq!(places(&plan, 0, wrong), None);
        }
    }
}
