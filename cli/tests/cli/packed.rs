//! `verify` of packed sequences: faults that must be found, and files that are no good cases.

use super::ops::{Change, lines_about, remove};
use super::support::Scratch;
use serde_json::json;

/// Lengths of queries 3, 0, 2, 5, 1, 7 of 20 rows; of keys 3, 4, 0, 2, 19, 9 of 40 rows.
const CAUSAL: &str = "packed_b6_h4kv2_d8_causal";
const WINDOW: &str = "packed_b4_h6kv2_d12_window";
const ALL: &str = "packed_b3_h3_d16_all";

#[test]
fn planted_faults_are_found() {
    let cases: &[(&str, &str, Change)] = &[
        // The last query of the fourth sequence, row 9, in the second head.
        ("out", CAUSAL, |f| f.change("out", (9 * 4 + 1) * 12, |x| x + 1e-4)),
        ("lse", CAUSAL, |f| f.change("lse", 20 + 9, |x| x - 1e-4)),
        // The third sequence has no keys.
        ("no_key", CAUSAL, |f| f.change("out", 4 * 4 * 12, |x| x + 1e-4)),
        ("not_causal", CAUSAL, |f| remove(f, "after")),
        ("one_key_more", CAUSAL, |f| f.set_indices("cu_seqlens_k", &[7], &[0, 3, 7, 7, 10, 28, 37])),
        ("one_query_less", CAUSAL, |f| f.set_indices("cu_seqlens_q", &[7], &[0, 3, 3, 5, 9, 11, 18])),
        ("key", WINDOW, |f| f.change("k", 0, |x| x + 0.1)),
        ("value", WINDOW, |f| f.change("v", 7, |x| x + 0.1)),
        ("scale", WINDOW, |f| f.case["scale"] = json!(0.3)),
        ("before", WINDOW, |f| f.case["before"] = json!(4)),
        ("after", WINDOW, |f| f.case["after"] = json!(1)),
        ("sinks", WINDOW, |f| f.case["sinks"] = json!(1)),
        // The last key of the second sequence, in another chunk than its first.
        ("far_key", ALL, |f| f.change("k", 306 * 48, |x| x + 0.5)),
    ];
    let scratch = Scratch::new("packed-faults");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 2, "{name}: the reference and an adapter: {lines:?}");
        for line in lines {
            assert_eq!(line["status"], "fail", "{name}: {line}");
            assert!(line["worst"].as_f64().is_some_and(|worst| worst > 1.0), "{name}: {line}");
        }
    }
}

#[test]
fn rows_of_no_sequence_do_not_count() {
    let cases: &[(&str, &str, Change)] = &[
        ("query", CAUSAL, |f| f.change("q", 19 * 32, |_| f32::NAN)),
        ("key", CAUSAL, |f| f.change("k", 39 * 16, |_| f32::NAN)),
        ("without_lse", WINDOW, |f| drop(f.tensors.remove("lse"))),
    ];
    let scratch = Scratch::new("packed-rows");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 2, "{name}: {lines:?}");
        lines.iter().for_each(|line| assert_eq!(line["status"], "pass", "{name}: {line}"));
    }
}

#[test]
fn malformed_cases() {
    let cases: &[(&str, &str, Change, &str)] = &[
        ("none", CAUSAL, |f| drop(f.tensors.remove("cu_seqlens_q")), "tensor `cu_seqlens_q`: need it"),
        (
            "falling",
            CAUSAL,
            |f| f.set_indices("cu_seqlens_k", &[7], &[0, 3, 2, 7, 9, 28, 37]),
            "tensor `cu_seqlens_k`: need offsets from 0 to at most 40 that never fall, got [0, 3, 2, 7, 9, 28, 37]",
        ),
        (
            "past_the_end",
            CAUSAL,
            |f| f.set_indices("cu_seqlens_q", &[7], &[0, 3, 3, 5, 10, 11, 21]),
            "need offsets from 0 to at most 20 that never fall",
        ),
        ("first", CAUSAL, |f| f.set_indices("cu_seqlens_q", &[2], &[1, 3]), "need offsets from 0"),
        (
            "sequences",
            CAUSAL,
            |f| f.set_indices("cu_seqlens_k", &[3], &[0, 3, 37]),
            "tensor `cu_seqlens_k`: need [B + 1] = [7], got 3",
        ),
        ("nothing", CAUSAL, |f| f.set_indices("cu_seqlens_q", &[7], &[0; 7]), "need a query, got none"),
        ("k", WINDOW, |f| f.set_floats("k", &[33, 2, 8], &[0.0; 33 * 16]), "tensor `k`: need [keys, Hkv, d]"),
        (
            "out",
            CAUSAL,
            |f| f.change("out", 19 * 48, |_| 1.0),
            "tensor `out`: need 0 in rows of no sequence, got another number in row 19",
        ),
        ("lse", CAUSAL, |f| f.change("lse", 3 * 20 + 18, |_| 0.0), "need f32::MIN in rows of no sequence"),
    ];
    let scratch = Scratch::new("packed-malformed");
    let changes: Vec<(&str, &str, Change)> = cases.iter().map(|it| (it.0, it.1, it.2)).collect();
    for ((name, lines), (.., reason)) in lines_about(&scratch, &changes, &["--cpu-only"]).iter().zip(cases) {
        let said = lines[0]["reason"].as_str().unwrap_or_default();
        assert!(lines[0]["status"] == "fail" && said.contains(reason), "{name}: {}", lines[0]);
    }
}
