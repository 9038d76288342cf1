//! A chosen pattern at its lengths, as numbers for the page.

use crate::catalogue::{Choice, Made};
use crate::field::Field;
use serde::Serialize;
use wgpu_attention::{BlockGrid, Error, Part, Parts, Result};

/// Queries and keys of a picture, at most: planning a longer one takes too long to follow a slider. A run may have more.
pub(crate) const MOST: usize = 1 << 20;
/// Bytes of a score that dense attention would write.
const SCORE_BYTES: u64 = 4;

/// What the page shows beside the picture.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    queries: usize,
    keys: usize,
    /// Pairs that the pattern keeps.
    kept: u64,
    /// Pairs of the blocks that the kernel visits.
    visited: u64,
    /// Pairs of dense attention.
    dense: u64,
    /// Bytes of the tables that the kernel reads.
    mask_bytes: u64,
    /// Bytes of a matrix of all scores.
    score_bytes: u64,
    /// Why it wastes visits, where it does.
    note: Option<String>,
    rust: String,
    command: Option<String>,
    parts: Vec<PartFacts>,
}

/// A part that the kernel runs by itself.
#[derive(Debug, Serialize)]
struct PartFacts {
    queries: usize,
    keys: usize,
    block_q: usize,
    block_k: usize,
    /// Queries, keys are in natural order.
    natural: [bool; 2],
    /// Blocks of each kind.
    full: u64,
    partial: u64,
    skipped: u64,
}

/// Plans a choice.
///
/// # Errors
/// What the catalogue, the pattern and the planner refuse, and lengths past [`MOST`].
pub(crate) fn planned(choice: &Choice) -> Result<(Facts, Field)> {
    let (queries, keys) = (choice.queries()?, choice.length()?);
    for (name, size) in [("length", keys), ("queries", queries)] {
        if size > MOST {
            return Err(Error::argument(
                name,
                format!("at most {MOST} for a picture (a run may have more)"),
                size,
            ));
        }
    }
    let made = choice.make()?;
    let parts = Parts::lower(&made.pattern, BlockGrid::new(queries, keys))?;
    Ok((Facts::new(&made, &parts), Field::new(parts)))
}

impl Facts {
    fn new(made: &Made, parts: &Parts) -> Self {
        let (queries, keys) = (parts.extent().q_len, parts.extent().kv_len);
        let dense = queries as u64 * keys as u64;
        Self {
            queries,
            keys,
            kept: parts.kept(),
            visited: parts.visited(),
            dense,
            mask_bytes: parts.bytes(),
            score_bytes: SCORE_BYTES * dense,
            note: parts.note().map(Into::into),
            rust: made.rust.clone(),
            command: made.command(),
            parts: parts.parts().iter().map(PartFacts::new).collect(),
        }
    }
}

impl PartFacts {
    fn new(part: &Part) -> Self {
        let grid = part.mask.grid();
        let [mut full, mut partial] = [0, 0];
        for q_block in 0..grid.q_blocks() {
            let row = part.mask.row(0, 0, q_block);
            full += row.full.iter().map(|run| u64::from(run.count)).sum::<u64>();
            partial += row.partial.iter().map(|run| u64::from(run.count)).sum::<u64>();
        }
        Self {
            queries: grid.q_len,
            keys: grid.kv_len,
            block_q: grid.block_q,
            block_k: grid.block_k,
            natural: [part.q_order.is_none(), part.k_order.is_none()],
            full,
            partial,
            skipped: grid.q_blocks() as u64 * grid.k_blocks() as u64 - full - partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned_of(choice: serde_json::Value) -> Result<serde_json::Value> {
        let choice: Choice = serde_json::from_value(choice).expect("a choice");
        planned(&choice).map(|(facts, _)| serde_json::to_value(facts).expect("numbers and texts"))
    }

    #[test]
    fn the_numbers_are_those_of_the_mask() {
        let window = json!({"before": "63", "after": "0"});
        let facts = planned_of(json!({"pattern": "window", "length": "256", "values": window})).unwrap();
        assert_eq!(
            (&facts["kept"], &facts["visited"], &facts["dense"]),
            (&json!(14368), &json!(28672), &json!(65536))
        );
        assert_eq!(facts["score_bytes"], 4 * 65536);
        let part = &facts["parts"][0];
        assert_eq!((&part["full"], &part["partial"], &part["skipped"]), (&json!(0), &json!(7), &json!(9)));
        assert_eq!(facts["rust"], "Window { before: 63, after: 0 }");
        assert_eq!(facts["command"], "window:before=63,after=0");
    }

    /// What a hand may type, and a link may hold.
    #[test]
    fn bad_lengths_and_parameters_are_refused_in_a_sentence() {
        let refusals = [
            (json!({"pattern": "causal", "length": "0"}), "length: need a whole number from 1"),
            (json!({"pattern": "causal", "length": "-4"}), "got -4"),
            (json!({"pattern": "causal", "length": ""}), "got nothing"),
            (json!({"pattern": "causal", "length": "1e30"}), "got 1e30"),
            (
                json!({"pattern": "causal", "length": "4294967295"}),
                "length: need at most 1048576 for a picture",
            ),
            (
                json!({"pattern": "causal", "length": "64", "queries": "0"}),
                "queries: need a whole number from 1",
            ),
            (json!({"pattern": "helix", "length": "64"}), "pattern: need causal, window"),
            (json!({"pattern": "window", "length": "64", "values": {"before": "-1"}}), "window.before: need"),
            (
                json!({"pattern": "window", "length": "64", "values": {"befor": "1"}}),
                "window: need before, after",
            ),
            (json!({"pattern": "full", "length": "64", "values": {"x": "1"}}), "full: need no parameters"),
            (
                json!({"pattern": "strided", "length": "64", "values": {"stride": "0"}}),
                "Strided.stride: need 1 to",
            ),
            (
                json!({"pattern": "strided", "length": "64", "values": {"part": "x"}}),
                "strided.part: need both, local",
            ),
            (
                json!({"pattern": "strided", "length": "64", "values": {"causal": "yes"}}),
                "strided.causal: need 0 or 1",
            ),
            (
                json!({"pattern": "global", "length": "64", "values": {"every": "0"}}),
                "global.every: need a whole",
            ),
            (
                json!({"pattern": "blocks", "length": "1000000", "values": {"block": "16"}}),
                "blocks.block: need at least 489",
            ),
            (
                json!({"pattern": "permutation", "length": "1000000", "values": {"step": "999999"}}),
                "permutation.step",
            ),
            (
                json!({"pattern": "key_lengths", "length": "64"}),
                "KeyLengths.lengths[0]: need at most kv_len (64)",
            ),
            (
                json!({"pattern": "text", "length": "64", "values": {"text": "helix"}}),
                "no pattern is called `helix`",
            ),
            (
                json!({"pattern": "bigbird", "length": "64", "values": {"window": "2"}}),
                "BigBird.window: need",
            ),
        ];
        for (choice, words) in refusals {
            let error = planned_of(choice.clone()).expect_err("a refusal").to_string();
            assert!(error.contains(words), "{choice}: {error}");
        }
        // Ends past the sequence are valid.
        let wide = json!({"pattern": "window", "length": "64", "values": {"before": "4294967295"}});
        assert_eq!(planned_of(wide).unwrap()["kept"], 64 * 65 / 2);
    }
}
