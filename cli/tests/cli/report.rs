//! `report`: pages and tables from records; the table of the README.

use crate::support::{Scratch, without_adapter, workspace};

/// Planned by hand: every status, two adapters that ran and one that could not.
const SAMPLE: &str = "crates/bench/tests/data/bench.json";

#[test]
fn a_page_and_a_table_are_made_of_a_record() {
    let scratch = Scratch::new("report-files");
    let (html, csv) = (scratch.file("x.html"), scratch.file("x.csv"));
    let said = without_adapter(["report", SAMPLE, SAMPLE, "--html", &html, "--csv", &csv]).good();
    assert_eq!(said, "");
    let html = std::fs::read_to_string(html).expect("the page");
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>"));
    assert_eq!(html.matches("<h2>Software Example (vulkan)</h2>").count(), 2);
    let csv = std::fs::read_to_string(csv).expect("the table");
    assert_eq!(csv.lines().count(), 1 + 2 * 35);
    assert!(csv.starts_with("version,date,suite,adapter,backend,"), "{csv}");
    assert_eq!(scratch.names(), ["x.csv", "x.html"]);
}

/// The records that are kept.
fn kept() -> Vec<String> {
    let folder = workspace().join("benches/results");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = files.map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut records: Vec<_> =
        names.filter(|name| name.ends_with(".json")).map(|name| format!("benches/results/{name}")).collect();
    records.sort();
    assert!(!records.is_empty(), "no record in {}", folder.display());
    records
}

#[test]
fn the_table_of_the_page_is_that_of_the_records() {
    let readme = ["--into", "docs/RESULTS.md", "--check"].map(String::from);
    let current = [vec!["report".into()], kept(), readme.into()].concat();
    assert_eq!(without_adapter(current).good(), "");

    // What the command prints is what stands there.
    let printed = without_adapter([vec!["report".into()], kept(), vec!["--markdown".into()]].concat()).good();
    let readme = std::fs::read_to_string(workspace().join("docs/RESULTS.md")).expect("the page of records");
    assert!(readme.contains(printed.trim_end()), "{printed}");
    assert!(printed.contains("| attention/causal f32 b1 h1 n2048 d64 | "), "{printed}");
}

/// Where there are records of the suite `crossover`, the page and its pictures are theirs.
#[test]
fn the_page_of_crossovers_is_that_of_the_records() {
    let folder = workspace().join("benches/results/crossover");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names = files.map(|file| file.expect("an entry").path().display().to_string());
    let mut records: Vec<String> = names.filter(|name| name.ends_with(".json")).collect();
    records.sort();
    assert!(!records.is_empty(), "no record in {}", folder.display());
    let page = ["--crossover", "docs/CROSSOVER.md", "--check"].map(String::from);
    assert_eq!(without_adapter([vec!["report".into()], records, page.into()].concat()).good(), "");
}

#[test]
fn a_stale_table_is_noticed_and_replaced() {
    let scratch = Scratch::new("report-stale");
    let file = scratch.file("RESULTS.md");
    let readme = std::fs::read_to_string(workspace().join("docs/RESULTS.md")).expect("the page of records");
    std::fs::write(&file, readme.replacen("| attention/full f32 ", "| attention/empty f32 ", 1))
        .expect("written");
    let put = |check: &[&str]| {
        let options =
            ["--into".to_owned(), file.clone()].into_iter().chain(check.iter().map(|it| it.to_string()));
        without_adapter(["report".to_owned()].into_iter().chain(kept()).chain(options))
    };
    let stale = put(&["--check"]).refused(1);
    assert!(stale.contains("what it has is not that of the records"), "{stale}");
    put(&[]).good();
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), readme);
    assert_eq!(scratch.names(), ["RESULTS.md"]);
}

#[test]
fn what_is_no_record_or_no_place_is_refused() {
    let scratch = Scratch::new("report-refused");
    let (html, words) = (scratch.file("x.html"), scratch.file("words.json"));
    std::fs::write(&words, "words").expect("written");
    let newer = scratch.file("newer.json");
    let sample = std::fs::read_to_string(workspace().join(SAMPLE)).expect("the sample");
    std::fs::write(&newer, sample.replacen("\"format\": 1", "\"format\": 9", 1)).expect("written");
    let page = |record: &str| without_adapter(["report", record, "--html", &html]).refused(1);
    let error = page(&scratch.file("none.json"));
    assert!(error.contains("cannot read") && error.contains("none.json"), "{error}");
    let error = page(&words);
    assert!(error.contains("words.json: need the JSON of `wgpu-attention bench`"), "{error}");
    let error = page(&newer);
    assert!(error.contains("newer.json: need a benchmark record of format 1, got format 9"), "{error}");
    let empty = scratch.file("empty.json");
    let mut none: serde_json::Value = serde_json::from_str(&sample).expect("JSON");
    none["adapters"] = serde_json::json!([]);
    std::fs::write(&empty, none.to_string()).expect("written");
    assert!(page(&empty).contains("empty.json: need at least one case, got none"));
    let error = without_adapter(["report", SAMPLE, "--csv", &scratch.file("no/x.csv")]).refused(1);
    assert!(error.contains("there is no folder"), "{error}");
    let error = without_adapter(["report", SAMPLE, "--into", &words]).refused(1);
    assert!(error.contains("words.json: need the lines `<!-- benchmarks: begin"), "{error}");
    without_adapter(["report", SAMPLE]).refused(2);
    without_adapter(["report", "--markdown"]).refused(2);
    without_adapter(["report", SAMPLE, "--markdown", "--check"]).refused(2);
    // Also before anything is measured.
    let error = without_adapter(["bench", "--html", &scratch.file("no/x.html")]).refused(1);
    assert!(error.contains("there is no folder"), "{error}");
    assert_eq!(scratch.names(), ["empty.json", "newer.json", "words.json"], "nothing is written");
}
