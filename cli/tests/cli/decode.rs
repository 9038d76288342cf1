//! `verify` of decoding: faults that must be found, and files that are no good cases.

use super::ops::{Change, lines_about, remove};
use super::support::Scratch;
use serde_json::json;

const LENGTHS: &str = "decode_b3_h4kv2_d8_lengths";
const LATENT: &str = "decode_b2_h4_d40_values8_rotary8";
const TURNED: &str = "decode_b2_h4kv2_d12_rotary8_window6_sinks2";

#[test]
fn planted_faults_are_found() {
    let cases: &[(&str, &str, Change)] = &[
        // The last position of the second sequence's last head: [1, 3, 8] of [3, 4, 20].
        ("out", LENGTHS, |f| f.change("out", ((4 + 3) * 20 + 8) * 12, |x| x + 1e-4)),
        ("lse", LENGTHS, |f| f.change("lse", 5, |x| x - 1e-4)),
        ("key", LENGTHS, |f| f.change("k", 0, |x| x + 0.1)),
        ("value", LENGTHS, |f| f.change("v", 11, |x| x + 0.1)),
        ("scale", LENGTHS, |f| f.case["scale"] = json!(0.3)),
        ("latent_key", LATENT, |f| f.change("k", 39, |x| x + 0.1)),
        ("window", TURNED, |f| f.case["window"] = json!(7)),
        ("sinks", TURNED, |f| f.case["sinks"] = json!(1)),
        ("pairs", TURNED, |f| f.case["interleaved"] = json!(true)),
        ("table", TURNED, |f| f.change("sin", 4 * 20, |x| x + 1e-2)),
        ("turned_out", TURNED, |f| f.change("out", 0, |x| x + 1e-3)),
        ("not_turned", TURNED, |f| {
            remove(f, "rotary_dim");
            f.tensors.retain(|name, _| name != "cos" && name != "sin");
        }),
    ];
    let scratch = Scratch::new("decode-faults");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 2, "{name}: the reference and an adapter: {lines:?}");
        for line in lines {
            assert_eq!(line["status"], "fail", "{line}");
            assert!(line["worst"].as_f64().is_some_and(|worst| worst > 1.0), "{line}");
        }
    }
}

#[test]
fn what_is_behind_a_length_does_not_count() {
    let cases: &[(&str, &str, Change)] = &[
        ("row", LENGTHS, |f| f.change("k", (2 * 2 * 20 + 3) * 8, |_| f32::NAN)),
        ("in_one_step", LENGTHS, |f| f.set_indices("counts", &[1, 3], &[20, 9, 3])),
        ("without_lse", TURNED, |f| drop(f.tensors.remove("lse"))),
    ];
    let scratch = Scratch::new("decode-lengths");
    for (name, lines) in lines_about(&scratch, cases, &["--adapter", "0"]) {
        assert_eq!(lines.len(), 2, "{name}: {lines:?}");
        lines.iter().for_each(|line| assert_eq!(line["status"], "pass", "{line}"));
    }
}

#[test]
fn malformed_cases() {
    let cases: &[(&str, &str, Change, &str)] = &[
        ("no_capacity", LENGTHS, |f| remove(f, "capacity"), "capacity: need a whole number, got none"),
        (
            "capacity",
            LENGTHS,
            |f| f.case["capacity"] = json!(19),
            "tensor `counts`: need at most 19 positions of a sequence, by L and the capacity, got 20 of sequence 0",
        ),
        ("many", LENGTHS, |f| f.set_indices("counts", &[1, 3], &[20, 21, 3]), "got 21 of sequence 1"),
        (
            "sequences",
            LENGTHS,
            |f| f.set_indices("counts", &[1, 2], &[1, 1]),
            "tensor `counts`: need [steps, B] = [1, 3], got [1, 2]",
        ),
        ("nothing", LENGTHS, |f| f.set_indices("counts", &[1, 3], &[0; 3]), "need a new position, got none"),
        ("counts", LENGTHS, |f| drop(f.tensors.remove("counts")), "tensor `counts`: need it"),
        (
            "v",
            LENGTHS,
            |f| f.set_floats("v", &[3, 2, 19, 12], &[0.0; 3 * 2 * 19 * 12]),
            "tensor `v`: need [B, Hkv, L, dv] = [3, 2, 20, 12], got [3, 2, 19, 12]",
        ),
        (
            "two_values",
            LATENT,
            |f| f.set_floats("v", &[2, 1, 11, 32], &[0.0; 2 * 11 * 32]),
            "tensor `v`: need none, as values are a part of keys, got a tensor",
        ),
        (
            "part",
            LATENT,
            |f| f.case["values_in_keys"] = json!(16),
            "values_in_keys: need multiples of 4 that end at head_dim (40) or before, got 16..48",
        ),
        ("no_part", LATENT, |f| remove(f, "values_in_keys"), "tensor `v`: need it"),
        (
            "rotary_dim",
            TURNED,
            |f| f.case["rotary_dim"] = json!(14),
            "rotary: need an even number from 2 to head_dim (12), got 14",
        ),
        (
            "table",
            TURNED,
            |f| f.set_floats("cos", &[26, 4], &[0.0; 26 * 4]),
            "tensor `cos`: need [capacity, rotary_dim / 2] = [32, 4], got [26, 4]",
        ),
        ("no_table", TURNED, |f| drop(f.tensors.remove("sin")), "tensor `sin`: need it"),
        (
            "tables",
            TURNED,
            |f| remove(f, "rotary_dim"),
            "tensor `cos`: need none, as there is no rotary_dim, got a tensor",
        ),
    ];
    let scratch = Scratch::new("decode-malformed");
    let changes: Vec<(&str, &str, Change)> = cases.iter().map(|it| (it.0, it.1, it.2)).collect();
    for ((name, lines), (.., reason)) in lines_about(&scratch, &changes, &["--cpu-only"]).iter().zip(cases) {
        let said = lines[0]["reason"].as_str().unwrap_or_default();
        assert!(lines[0]["status"] == "fail" && said.contains(reason), "{name}: {}", lines[0]);
    }
}
