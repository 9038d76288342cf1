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

/// Records without scores stay what they were, byte by byte: that is the sample's round trip. With one, it is there again.
#[test]
fn a_score_is_written_and_read_again_and_may_be_missing() -> Result<()> {
    assert!(!SAMPLE.contains("\"score"), "the sample is as it was before there were scores");
    let mut record = Record::parse(SAMPLE)?;
    let case = &mut record.adapters[0].cases[0];
    assert_eq!((&case.score, &case.score_text, case.family().as_str()), (&None, &None, "attention/full"));
    (case.score, case.score_text) = (Some("alibi".into()), Some("alibi".into()));
    assert_eq!(case.family(), "attention/full+alibi");
    let text = record.to_json()?;
    assert!(text.contains("\"score\": \"alibi\",\n"), "{text}");
    assert_eq!(Record::parse(&text)?, record);
    // Neither is a name of something else.
    let misspelt = text.replacen("\"score\"", "\"scores\"", 1);
    assert!(format!("{:#}", Record::parse(&misspelt).unwrap_err()).contains("unknown field `scores`"));
    Ok(())
}

#[test]
fn the_schema_is_kept() -> Result<()> {
    let kept = include_str!("../../schema/bench-1.json");
    let made = Record::schema()?;
    assert!(
        kept == made,
        "after a change of the fields: another FORMAT, unless old records stay readable, and `wgpu-attention bench --schema`"
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
