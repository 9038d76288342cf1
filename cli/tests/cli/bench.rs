//! `bench`: lists, runs, is interrupted, refuses.

use crate::support::{Scratch, wgpu_attention, without_adapter};
use serde_json::Value;

fn record(file: &str) -> Value {
    let text = std::fs::read_to_string(file).expect("the record");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every case of every adapter.
fn cases(record: &Value) -> Vec<&Value> {
    let adapters = record["adapters"].as_array().expect("adapters");
    adapters.iter().flat_map(|adapter| adapter["cases"].as_array().expect("cases")).collect()
}

#[test]
fn cases_and_schema_can_be_printed_without_an_adapter() {
    let quick = without_adapter(["bench", "--list"]).good();
    assert!(quick.lines().any(|line| line == "attention/causal f32 b1 h1 n1024 d64"), "{quick}");
    let published =
        without_adapter(["bench", "--suite", "standard", "--list", "--filter", "BigBird-base"]).good();
    let schema = without_adapter(["bench", "--schema"]).good();
    assert!(schema.contains("\"title\": \"Record\""), "{schema}");
    assert_eq!(published, "attention/bigbird f16 b1 h12 n4096 d64 (BigBird-base)\n");
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_measured() {
    let scratch = Scratch::new("bench-refused");
    let none = wgpu_attention(["bench", "--filter", "helix"]).refused(1);
    assert!(
        none.contains("--filter: need a part of the name of a case") && none.contains("`helix`"),
        "{none}"
    );
    wgpu_attention(["bench", "--suite", "endless"]).refused(2);
    let nowhere = wgpu_attention(["bench", "--json", &scratch.file("no/x.json")]).refused(1);
    assert!(nowhere.contains("there is no folder"), "{nowhere}");
    let adapter = without_adapter(["bench", "--json", &scratch.file("x.json")]).refused(1);
    assert!(adapter.contains("no GPU adapter"), "{adapter}");
    assert!(scratch.names().is_empty());
}

#[test]
fn a_case_is_verified_and_timed_and_the_record_holds_it_all() {
    let scratch = Scratch::new("bench-run");
    let file = scratch.file("x.json");
    let outcome =
        wgpu_attention(["bench", "--adapter", "0", "--filter", "add f32", "--json", &file, "--quiet"]);
    assert_eq!(outcome.stderr, "");
    let text = outcome.good();
    for part in
        ["fma f32", "GFLOP/s", "| add f32 1024x1024 ", "ceilings, before and after:", "0 failed verification"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    let record = record(&file);
    assert_eq!(
        (&record["format"], &record["complete"], &record["suite"]),
        (&1.into(), &true.into(), &"quick".into())
    );
    let rules = &record["rules"];
    let adapter = &record["adapters"][0];
    for ceiling in adapter["ceilings"].as_array().expect("ceilings") {
        let (value, drift) = (ceiling["before"]["value"].as_f64(), ceiling["drift"].as_f64());
        match ceiling["why"].as_str() {
            None => assert!(value.is_some_and(|value| value > 0.0) && drift.is_some(), "{ceiling}"),
            Some(why) => assert!(!why.is_empty() && value.is_none(), "{ceiling}"),
        }
    }
    let [case] = cases(&record)[..] else { panic!("need one case: {record}") };
    assert_eq!(case["verification"]["pass"], true);
    assert_eq!(
        (&case["cost"]["useful_flop"], &case["cost"]["bytes"]),
        (&1048576.0.into(), &12582912.0.into())
    );
    let samples = case["hot"]["wall"]["samples_s"].as_array().expect("samples").len();
    match case["status"].as_str() {
        Some("measured") => assert!(samples >= 10, "{case}"),
        Some("unconverged") => assert!(case["hot"]["spent_s"].as_f64() >= rules["max_s"].as_f64(), "{case}"),
        other => panic!("{other:?}: {case}"),
    }
    let clock = if case["hot"]["timestamps"].is_null() { "wall" } else { "timestamps" };
    let median = case["hot"][clock]["summary"]["median_s"].as_f64().expect("a median");
    assert_eq!(case["rates"]["time_s"].as_f64(), Some(median));
    let expected = 1048576.0 / median;
    assert!((case["rates"]["useful_flop_s"].as_f64().expect("a rate") / expected - 1.0).abs() < 1e-12);
}

/// Ctrl-C after the first case: the file is whole, and says what was and what was not done.
#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_a_valid_record() {
    let scratch = Scratch::new("bench-interrupted");
    let file = scratch.file("x.json");
    let mut run =
        crate::support::command(["bench", "--adapter", "0", "--filter", "n512", "--json", &file, "--quiet"]);
    let mut run = run.stdout(std::process::Stdio::null()).spawn().expect("the binary starts");
    let patience = std::time::Instant::now();
    while !std::path::Path::new(&file).exists() {
        assert!(patience.elapsed().as_secs() < 120, "no case was done in two minutes");
        assert!(run.try_wait().expect("a child").is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    assert_eq!(run.wait().expect("a child").code(), Some(1));

    let record = record(&file);
    assert_eq!(record["complete"], false);
    let statuses: Vec<_> = cases(&record).iter().map(|case| case["status"].clone()).collect();
    assert!(["measured", "unconverged"].iter().any(|done| statuses[0] == *done), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&"interrupted".into()), "{statuses:?}");
    assert_eq!(scratch.names(), ["x.json"], "nothing half written is left");
}
