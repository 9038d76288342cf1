//! `compare`: planted changes, found or not; what is in one file only; bad files.

use crate::support::{Scratch, without_adapter, workspace};
use serde_json::{Value, json};

const SAMPLE: &str = "crates/bench/tests/data/bench.json";

fn sample() -> Value {
    let text = std::fs::read_to_string(workspace().join(SAMPLE)).expect("the sample");
    serde_json::from_str(&text).expect("JSON")
}

/// The first adapter's cases.
fn cases(record: &mut Value) -> &mut Vec<Value> {
    record["adapters"][0]["cases"].as_array_mut().expect("cases")
}

/// Multiplies every sample of a case.
fn scale(record: &mut Value, name: &str, factor: f64) {
    let case = cases(record).iter_mut().find(|case| case["name"] == name).expect("the case");
    for clock in ["wall", "timestamps"] {
        for sample in case["hot"][clock]["samples_s"].as_array_mut().expect("samples") {
            *sample = json!(factor * sample.as_f64().expect("a number"));
        }
    }
}

fn written(scratch: &Scratch, name: &str, record: &Value) -> String {
    let file = scratch.file(name);
    std::fs::write(&file, record.to_string()).expect("written");
    file
}

const MATMUL: &str = "matmul f32 512x512x512";

#[test]
fn a_run_against_itself_is_well() {
    let text = without_adapter(["compare", SAMPLE, SAMPLE]).good();
    assert!(text.contains("17 cases in both: 14 same, 3 neither (threshold 5 %)"), "{text}");
    assert!(text.contains("warning: drift: a ceiling changed"), "{text}");
    assert!(!text.contains("only in"), "{text}");
}

#[test]
fn a_planted_regression_is_found_past_the_threshold() {
    let scratch = Scratch::new("compare-planted");
    let mut slower = sample();
    scale(&mut slower, MATMUL, 1.2);
    let slower = written(&scratch, "b.json", &slower);
    let outcome = without_adapter(["compare", SAMPLE, &slower]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let line = outcome.stdout.lines().find(|line| line.contains(MATMUL)).expect("its line");
    assert!(line.contains("+20.0 %") && line.trim_end_matches(" |").ends_with("SLOWER"), "{line}");
    assert!(outcome.stdout.contains("17 cases in both: 1 SLOWER, 13 same"), "{outcome:?}");

    without_adapter(["compare", SAMPLE, &slower, "--threshold", "25"]).good();
    // Another machine may be.
    let mut machine = sample();
    scale(&mut machine, MATMUL, 1.2);
    machine["host"]["cpu"] = json!("Another CPU");
    let machine = written(&scratch, "machine.json", &machine);
    let text = without_adapter(["compare", SAMPLE, &machine]).good();
    assert!(text.contains("another machine: slower there is no regression"), "{text}");
    assert!(text.contains("17 cases in both: 1 SLOWER, 13 same"), "{text}");
    assert!(text.contains("ceilings against the base: fma f32 +0.0 %, copy +0.0 %"), "{text}");

    // The other way round it is faster.
    let text = without_adapter(["compare", &slower, SAMPLE]).good();
    assert!(text.contains("17 cases in both: 1 faster, 13 same"), "{text}");
}

#[test]
fn a_case_that_fails_or_cannot_run_any_more_is_a_regression() {
    let scratch = Scratch::new("compare-lost");
    for (status, words) in [("failed", "FAILED"), ("cannot_run", "CANNOT RUN")] {
        let mut lost = sample();
        let case = cases(&mut lost).iter_mut().find(|case| case["name"] == MATMUL).expect("the case");
        for (key, value) in [("status", json!(status)), ("hot", json!(null)), ("rates", json!(null))] {
            case[key] = value;
        }
        let lost = written(&scratch, "b.json", &lost);
        let outcome = without_adapter(["compare", SAMPLE, &lost]);
        assert!(outcome.code == 1 && outcome.stdout.contains(&format!("1 {words}, 13 same")), "{outcome:?}");
    }
}

#[test]
fn cases_of_one_file_are_named_and_json_says_it_all() {
    let scratch = Scratch::new("compare-json");
    let mut fewer = sample();
    cases(&mut fewer).retain(|case| case["name"] != MATMUL);
    scale(&mut fewer, "attention/full f32 b1 h1 n2048 d64", 1.5);
    let fewer = written(&scratch, "b.json", &fewer);
    let outcome = without_adapter(["compare", SAMPLE, &fewer, SAMPLE]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stdout.contains(&format!("only in {SAMPLE}: {MATMUL}\n")), "{outcome:?}");

    let outcome = without_adapter(["compare", SAMPLE, &fewer, "--json"]);
    assert_eq!(outcome.code, 1);
    let lines = outcome.json();
    let only: Vec<_> = lines.iter().filter(|line| line["type"] == "only").collect();
    assert_eq!(only.len(), 1);
    assert_eq!((&only[0]["case"], &only[0]["of"]["file"]), (&json!(MATMUL), &json!(SAMPLE)));
    let slower: Vec<_> = lines.iter().filter(|line| line["verdict"] == "slower").collect();
    assert_eq!(slower.len(), 1);
    assert_eq!(slower[0]["case"], "attention/full f32 b1 h1 n2048 d64");
    assert!((slower[0]["change"].as_f64().expect("a change") - 0.5).abs() < 1e-9);
    assert_eq!(slower[0]["other"]["adapter"], "Software Example");
    assert_eq!(lines.len(), 16 + 17 + 1 + 1);
}

/// Whatever was not compared is no good news.
#[test]
fn nothing_in_common_is_refused() {
    let scratch = Scratch::new("compare-nothing");
    let need = "need a case that both records have and that the first has timed, got none";
    let mut renamed = sample();
    for adapter in renamed["adapters"].as_array_mut().expect("adapters") {
        for case in adapter["cases"].as_array_mut().expect("cases") {
            case["name"] = json!(format!("another {}", case["name"].as_str().expect("a name")));
        }
    }
    let renamed = written(&scratch, "renamed.json", &renamed);
    for more in [&[][..], &["--json"]] {
        let outcome = without_adapter([&["compare", SAMPLE, &renamed], more].concat());
        assert!(outcome.code == 2 && outcome.stderr.contains(need), "{outcome:?}");
    }
    // Cases that were never timed, in both: as many as there are.
    let mut failed = sample();
    for adapter in failed["adapters"].as_array_mut().expect("adapters") {
        for case in adapter["cases"].as_array_mut().expect("cases") {
            case["status"] = json!("failed");
            for key in ["hot", "cold", "rates"] {
                case[key] = json!(null);
            }
        }
    }
    let failed = written(&scratch, "failed.json", &failed);
    let outcome = without_adapter(["compare", &failed, &failed]);
    assert!(outcome.code == 2 && outcome.stderr.contains(need), "{outcome:?}");
    // Against one that was timed, a failure is a regression as before.
    assert_eq!(without_adapter(["compare", SAMPLE, &failed]).code, 1);
}

#[test]
fn times_that_are_none_are_refused() {
    let scratch = Scratch::new("compare-times");
    let mut refused = vec![];
    for (name, factor) in [("zero.json", 0.0), ("negative.json", -1.0)] {
        let mut record = sample();
        scale(&mut record, MATMUL, factor);
        refused.push((written(&scratch, name, &record), "need a median time above 0 s, got "));
    }
    let mut failed = sample();
    let case = cases(&mut failed).iter_mut().find(|case| case["name"] == MATMUL).expect("the case");
    case["status"] = json!("failed");
    let need = "need no times, as it failed its verification, got some";
    refused.push((written(&scratch, "failed.json", &failed), need));
    for (file, need) in &refused {
        for files in [[SAMPLE, file], [file, SAMPLE]] {
            let error = without_adapter(["compare", files[0], files[1]]).refused(2);
            let names = error.contains(file.as_str()) && error.contains(&format!("case `{MATMUL}`"));
            assert!(names && error.contains(need), "{error}");
        }
    }
}

#[test]
fn bad_files_and_arguments_are_refused() {
    let scratch = Scratch::new("compare-refused");
    let words = scratch.file("words.json");
    std::fs::write(&words, "words").expect("written");
    let error = without_adapter(["compare", SAMPLE, &words]).refused(2);
    assert!(error.contains("words.json: need the JSON of `wgpu-attention bench`"), "{error}");
    let error = without_adapter(["compare", &scratch.file("none.json"), SAMPLE]).refused(2);
    assert!(error.contains("cannot read") && error.contains("none.json"), "{error}");
    let mut none = sample();
    none["adapters"] = json!([]);
    let none = written(&scratch, "empty.json", &none);
    let error = without_adapter(["compare", &none, SAMPLE]).refused(2);
    assert!(error.contains("empty.json: need at least one case, got none"), "{error}");
    let error = without_adapter(["compare", SAMPLE, SAMPLE, "--threshold=-1"]).refused(2);
    assert!(error.contains("--threshold: need a percentage of at least 0, got -1"), "{error}");
    without_adapter(["compare", SAMPLE]).refused(2);
}
