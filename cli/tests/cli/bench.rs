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
    for case in [
        "attention/full+t5 f32 b1 h1 n1024 d64",
        "attention/causal+custom f32 b1 h1 n1024 d64",
        "backward/causal+txl f32 b1 h1 n512 d64",
    ] {
        assert!(quick.lines().any(|line| line == case), "{case}: {quick}");
    }
    let published =
        without_adapter(["bench", "--suite", "standard", "--list", "--filter", "BigBird-base"]).good();
    let schema = without_adapter(["bench", "--schema"]).good();
    assert!(schema.contains("\"title\": \"Record\""), "{schema}");
    assert_eq!(published, "attention/bigbird f16 b1 h12 n4096 d64 (BigBird-base)\n");
}

/// By their names, and by what their text says.
#[test]
fn scores_are_found_by_filters() {
    let list = |filter: &str| {
        let text = without_adapter(["bench", "--suite", "standard", "--list", "--filter", filter]).good();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let alibi = list("causal+alibi");
    assert!(alibi.contains(&"attention/causal+alibi f16 b1 h8 n8192 d64".to_owned()), "{alibi:?}");
    assert!(alibi.iter().all(|name| name.contains("/causal+alibi ")), "{alibi:?}");
    let relative = list("relative:");
    for name in ["/causal+txl ", "/full+xlnet ", "/causal+music ", "/window+shaw "] {
        assert!(relative.iter().any(|case| case.contains(name)), "{name}: {relative:?}");
    }
    assert!(!relative.iter().any(|case| case.contains("alibi") || !case.contains('+')), "{relative:?}");
    let clipped = list("clip=true");
    assert!(!clipped.is_empty() && clipped.iter().all(|case| case.contains("+shaw ")), "{clipped:?}");
}

/// A case with a score in the terminal's table, the record, the table of `report`, and `compare`.
#[test]
fn a_score_is_timed_and_said() {
    let scratch = Scratch::new("bench-score");
    let (file, csv) = (scratch.file("x.json"), scratch.file("x.csv"));
    let name = "attention/causal+sinks f32 b1 h1 n1024 d64";
    let run =
        ["bench", "--adapter", "0", "--filter", "causal+sinks", "--json", &file, "--csv", &csv, "--quiet"];
    let text = wgpu_attention(run).good();
    assert!(text.contains(&format!("| {name} |")) && text.contains("0 failed verification"), "{text}");
    let record = record(&file);
    let [case] = cases(&record)[..] else { panic!("need one case: {record}") };
    assert_eq!(
        (&case["name"], &case["pattern"], &case["score"], &case["score_text"]),
        (&name.into(), &"causal".into(), &"sinks".into(), &"sinks".into())
    );
    assert_eq!(case["verification"]["pass"], true);
    // 2 (d + dv) for each pair; q, k, v, out, and one sink.
    assert_eq!(case["cost"]["useful_flop"], 256.0 * f64::from(1024 * 1025 / 2));
    assert!(case["cost"]["bytes"].as_f64() >= Some(f64::from(4 * (4 * 1024 * 64 + 1))), "{case}");
    let models = record["models"].as_array().expect("models");
    assert!(models.iter().any(|model| model["name"] == "relative rows"), "{models:?}");
    let csv = std::fs::read_to_string(csv).expect("the table");
    assert!(csv.lines().next().is_some_and(|head| head.contains(",pattern,score,score_text,path,")), "{csv}");
    assert!(csv.contains(",causal,sinks,sinks,"), "{csv}");
    let same = without_adapter(["compare", &file, &file]).good();
    assert!(same.contains(name) && same.contains("1 cases in both: 1 same"), "{same}");
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
