use super::*;

/// Planned by hand: every status, a missing clock, a drift.
const SAMPLE: &str = include_str!("../../tests/data/bench.json");

#[test]
fn the_sample_survives_a_round_trip() -> Result<()> {
    let record = Record::parse(SAMPLE)?;
    assert_eq!(Record::parse(&record.to_json()?)?, record);
    assert_eq!(record.to_json()?, SAMPLE, "the sample is written as `to_json` writes it");
    Ok(())
}

#[test]
fn the_schema_is_kept() -> Result<()> {
    let kept = include_str!("../../schema/bench-1.json");
    let made = Record::schema()?;
    assert!(
        kept == made,
        "after a change of the fields: another FORMAT, and `wgpu-attention bench --schema`"
    );
    Ok(())
}

#[test]
fn other_formats_and_other_fields_are_refused() {
    let refused = |text: &str| format!("{:#}", Record::parse(text).expect_err("it must be refused"));
    let newer = SAMPLE.replacen("\"format\": 1", "\"format\": 2", 1);
    assert!(refused(&newer).contains("need a benchmark record of format 1, got format 2"));
    let misspelt = SAMPLE.replacen("\"filter\"", "\"fliter\"", 1);
    assert!(refused(&misspelt).contains("fliter"));
    assert!(refused("{}").contains("format"));
    assert!(refused("[1").contains("need the JSON"));
}
