//! `tune`.

use super::support::{Scratch, wgpu_attention, without_adapter};

const CALL: [&str; 8] = ["tune", "--pattern", "causal", "--len", "130", "--head-dim", "32", "--json"];

#[test]
fn the_fastest_candidate_is_named_and_kept() {
    let folder = Scratch::new("tune");
    let cache = folder.file("choices.json");
    let tune = || wgpu_attention(CALL.into_iter().chain(["--cache", &cache])).json();
    let first = tune().remove(0);
    let timed =
        first["trials"].as_array().expect("trials").iter().filter(|trial| trial["outcome"] == "timed");
    assert!(timed.count() > 1, "{first}");
    assert!(first["gain"].as_f64().is_some_and(|gain| gain >= 1.0), "{first}");
    let second = tune().remove(0);
    assert_eq!((&second["best"], second["trials"].as_array().map(Vec::len)), (&first["best"], Some(0)));
    assert_eq!(folder.names(), ["choices.json"]);
}

#[test]
fn bad_input() {
    let folder = Scratch::new("tune-wrong");
    let cache = folder.file("choices.json");
    std::fs::write(&cache, "{}").expect("written");
    let error = wgpu_attention(CALL.into_iter().chain(["--cache", &cache])).refused(1);
    assert!(error.contains("choices.json"), "{error}");
    let error =
        wgpu_attention(["tune", "--pattern", "causal", "--len", "8", "--heads", "3", "--kv-heads", "2"]);
    assert!(error.refused(1).contains("kv_heads"));
    assert!(without_adapter(CALL).refused(1).contains("no GPU adapter"));
}
