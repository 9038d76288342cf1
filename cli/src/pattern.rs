//! Patterns as arguments.

use clap::Args;
use serde_json::Value;
use wgpu_attention::{AnyPattern, BlockGrid, BlockMask, Parts};

/// Which pairs are attended.
#[derive(Debug, Args)]
pub(crate) struct PatternArgs {
    /// The pattern: short (`causal`, `window:before=511,after=0`, `causal & key_lengths:lengths=[40,64]`), as JSON
    /// (`{"kind": "window", "before": 511, "after": 0}`), or `@FILE`, which holds either
    #[arg(long, short, value_name = "PATTERN", value_parser = parse)]
    pub(crate) pattern: AnyPattern,
}

/// How a pattern becomes parts.
#[derive(Debug, Args)]
pub(crate) struct LoweringArgs {
    /// One part in natural order, even where parts in an order of their own would visit fewer blocks
    #[arg(long)]
    pub(crate) no_lowering: bool,
}

impl LoweringArgs {
    /// The parts of a pattern.
    pub(crate) fn parts(&self, pattern: &AnyPattern, grid: BlockGrid) -> wgpu_attention::Result<Parts> {
        if self.no_lowering { Ok(BlockMask::new(pattern, grid)?.into()) } else { Parts::lower(pattern, grid) }
    }
}

/// A pattern as an argument.
pub(crate) fn parse(text: &str) -> Result<AnyPattern, String> {
    match text.strip_prefix('@') {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            AnyPattern::parse(text.trim()).map_err(|error| format!("{path}: {error}"))
        }
        None => AnyPattern::parse(text).map_err(|error| error.to_string()),
    }
}

/// Why a pattern in JSON cannot be used.
#[derive(Debug, PartialEq)]
pub(crate) enum Unusable {
    /// The kind, a parameter or a choice is not there (yet).
    Unsupported(String),
    /// It is wrong by itself.
    Malformed(String),
}

/// A pattern of a case file.
pub(crate) fn from_json(json: &Value) -> Result<AnyPattern, Unusable> {
    serde_json::from_value(json.clone()).map_err(|error| {
        let error = error.to_string();
        // serde tells the two apart in its words alone; a test holds it to them.
        match ["unknown variant", "unknown field"].iter().any(|unknown| error.starts_with(unknown)) {
            true => Unusable::Unsupported(format!("pattern: {error}")),
            false => Unusable::Malformed(format!("pattern: {error}, in {json}")),
        }
    })
}

/// Whether a pattern, or one that it is made of, is of a kind.
pub(crate) fn uses(pattern: &AnyPattern, kind: &str) -> bool {
    fn has(json: &Value, kind: &str) -> bool {
        match json {
            Value::Object(fields) => {
                fields.get("kind").is_some_and(|it| it == kind)
                    || fields.get("of").is_some_and(|of| has(of, kind))
            }
            Value::Array(of) => of.iter().any(|json| has(json, kind)),
            _ => false,
        }
    }
    serde_json::to_value(pattern).is_ok_and(|json| has(&json, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_there_yet_is_told_from_what_is_wrong() {
        let unsupported = [
            json!({"kind": "helix", "turns": 2}),
            json!({"kind": "window", "before": 1, "after": 0, "every": 2}),
            json!({"kind": "causal", "alignment": "middle"}),
            json!({"kind": "and", "of": [{"kind": "full"}, {"kind": "helix"}]}),
        ];
        for json in unsupported {
            assert!(
                matches!(from_json(&json), Err(Unusable::Unsupported(_))),
                "{json}: {:?}",
                from_json(&json)
            );
        }
        let malformed = [
            json!({"kind": "window", "after": 1}),
            json!({"kind": "window", "before": -2, "after": 0}),
            json!({"before": 1}),
            json!("full"),
            json!(null),
        ];
        for json in malformed {
            assert!(
                matches!(from_json(&json), Err(Unusable::Malformed(_))),
                "{json}: {:?}",
                from_json(&json)
            );
        }
    }

    #[test]
    fn kinds_are_found_at_any_depth() {
        let pattern = parse("causal & !(mask | prefix:len=2)").unwrap();
        assert!(uses(&pattern, "mask") && uses(&pattern, "prefix") && !uses(&pattern, "blocks"));
    }
}
