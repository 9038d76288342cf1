//! `adapters`, `draw` and `explain`, and the help.

use super::support::{Scratch, wgpu_attention, without_adapter};
use serde_json::Value;

#[test]
fn adapters_are_described() {
    let lines = wgpu_attention(["adapters", "--json"]).json();
    assert!(!lines.is_empty(), "no adapter: `cargo xtask test` fetches one on Linux");
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["index"], index);
        for key in ["name", "type", "backend", "driver", "why"] {
            assert!(line[key].is_string(), "{key}: {line}");
        }
        assert!(
            line["limits"]["max_compute_workgroup_storage_size"].as_u64().is_some_and(|it| it >= 16384),
            "{line}"
        );
        assert!(line["features"]["shader_f16"].is_boolean(), "{line}");
        let tests = line["self_tests"].as_array().expect("self-tests");
        for what in
            ["attention", "gradients", "LSH attention", "its gradients", "decoding", "packed sequences"]
        {
            let test = tests.iter().find(|it| it["what"] == what && it["path"] == "scalar");
            let test = test.unwrap_or_else(|| panic!("{what}: {line}"));
            assert!(test["verdict"] == "passed" && test["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{test}");
        }
    }
    assert_eq!(lines[0]["path"], "scalar", "{}", lines[0]);

    let text = wgpu_attention(["adapters"]).good();
    let name = lines[0]["name"].as_str().expect("a name");
    assert!(
        text.starts_with(&format!("0: {name}\n"))
            && text.contains("\n  kernel path  scalar: ")
            && text.contains("\n  self-test    attention, scalar in f32: passed in "),
        "{text}"
    );

    let error = without_adapter(["adapters"]).refused(1);
    assert!(error.starts_with("error: no GPU adapter: ") && error.contains("cargo attention"), "{error}");
}

#[test]
fn masks_are_drawn() {
    let draw = |more: &[&str]| wgpu_attention(["draw", "--pattern"].iter().chain(more));
    let text = draw(&["causal", "--len", "160", "--kv-len", "224", "--block", "32"]).good();
    let (summary, picture) = text.split_once('\n').expect("lines");
    // How many bytes the packed mask has is a matter of the library.
    assert!(
        summary
            .starts_with("[1, 1, 160, 224] in blocks of 32 x 32: 23120 pairs kept, 25600 visited (x 1.11)"),
        "{text}"
    );
    let expected = "\
█ full  ▒ partial  · empty
██▒····
███▒···
████▒··
█████▒·
██████▒
";
    assert_eq!(picture, expected);

    let text = draw(&["window:before=2,after=1", "--len", "4", "--kv-len", "6", "--pairs"]).good();
    assert_eq!(text, "████··\n·████·\n··████\n···███\n");
    // Without being asked for, too, where a picture of blocks would be a few characters.
    let small = draw(&["window:before=2,after=1", "--len", "4", "--kv-len", "6"]).good();
    let lines: Vec<_> = small.lines().collect();
    assert!(lines[0].starts_with("[1, 1, 4, 6] in blocks of 64 x 64: 15 pairs kept"), "{small}");
    assert_eq!(lines[1..], ["█ kept  · left out", "████··", "·████·", "··████", "···███"]);
    let wide = |len: &str| draw(&["causal", "--len", len]).good().lines().count();
    assert_eq!([wide("32"), wide("159"), wide("160")], [34, 161, 5], "from 160 on: three blocks");
    let text = draw(&["key_lengths:lengths=[1,3]", "--len", "3", "--batch", "2", "--pairs"]).good();
    assert_eq!(text, "batch item 0, head 0:\n█··\n█··\n█··\nbatch item 1, head 0:\n███\n███\n███\n");
    let many = draw(&["key_lengths:lengths=[1,2,3,1,2,3]", "--len", "3", "--batch", "6"]).good();
    assert!(many.contains("batch item 3, head 0:\n") && many.ends_with("█··\nand 2 more\n"), "{many}");
    // No key, no query.
    let none = draw(&["causal", "--len", "8", "--kv-len", "0"]).good();
    assert!(none.starts_with("[1, 1, 8, 0] in blocks of 64 x 64: 0 pairs kept, 0 visited"), "{none}");
    draw(&["causal", "--len", "0", "--kv-len", "8"]).good();
    let text = draw(&["key_lengths:lengths=[16,64]", "--len", "64", "--batch", "2", "--block", "16"]).good();
    assert!(
        text.contains("batch item 0, head 0: ") && text.contains("\n█···\n") && text.contains("\n████\n"),
        "{text}"
    );

    let scratch = Scratch::new("draw");
    let svg = scratch.file("mask.svg");
    draw(&["prefix:len=9 | window:before=3,after=0", "--len", "40", "--svg", &svg]).good();
    let svg = std::fs::read_to_string(svg).expect("the picture");
    assert!(
        svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && svg.contains("prefix"),
        "{svg}"
    );
    assert_eq!(scratch.names(), ["mask.svg"]);

    for (args, needle) in [
        (&["causal", "--len", "8", "--block", "5"][..], "block_q: need a power of two from 16 to 256, got 5"),
        (&["causal", "--len", "8", "--heads", "0"], "heads: need at least 1, got 0"),
        (&["full", "--len", "100000", "--pairs"], "--pairs: need at most"),
        (&["full", "--len", "8", "--svg", "/no/such/x.svg"], "there is no folder /no/such"),
        (&["document:ids=[1,2]", "--len", "8"], "document"),
    ] {
        let error = draw(args).refused(1).to_lowercase();
        assert!(error.contains(&needle.to_lowercase()), "{args:?}: {error}");
    }
    for pattern in ["windw:before=1", "window:after=1", "window:before=-2,after=0", "@/no/such/file", "{"] {
        let error = draw(&[pattern, "--len", "8"]).refused(2);
        assert!(
            error.starts_with("error: invalid value") && error.contains(pattern.trim_start_matches('@')),
            "{error}"
        );
    }
}

/// What is typed from other libraries: an open end, what may be left out, and a name that is nearly right.
#[test]
fn patterns_of_other_libraries() {
    let draw = |pattern: &str| wgpu_attention(["draw", "--len", "200", "--pattern", pattern]);
    let causal = draw("causal").good();
    assert_eq!(draw("window:before=-1").good(), causal);
    assert_eq!(draw("window:before=-1,after=-1").good(), draw("full").good());
    assert_eq!(draw("window:before=127").good(), draw("window:before=127,after=0").good());
    draw("bigbird:block=64,window=3,global=1,random=1").good();
    draw("first:count=4 | window:before=15").good();
    for (typed, nearest) in
        [("casual", "causal"), ("windw:before=1", "window"), ("sliding_window:before=1", "window")]
    {
        let error = draw(typed).refused(2);
        assert!(error.contains(&format!("`: `{nearest}`, ")), "{typed}: {error}");
    }
}

#[test]
fn patterns_are_read_from_files() {
    let scratch = Scratch::new("pattern-file");
    std::fs::write(scratch.file("p.json"), "{\"kind\": \"causal\"}\n").expect("written");
    let from_file =
        wgpu_attention(["draw", "--pattern", &format!("@{}", scratch.file("p.json")), "--len", "200"]).good();
    assert_eq!(from_file, wgpu_attention(["draw", "--pattern", "causal", "--len", "200"]).good());
}

fn explain(more: &[&str]) -> Value {
    let outcome = wgpu_attention(["explain", "--json", "--pattern"].iter().chain(more));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.json().remove(0)
}

#[test]
fn plans_are_explained() {
    let window = explain(&["window:before=63,after=0", "--len", "1024", "--heads", "4", "--batch", "2"]);
    for key in ["parts", "kept", "visited", "mask_bytes", "scratch_bytes"] {
        assert!(window[key].is_u64(), "{key}: {window}");
    }
    assert!(window["build_s"].as_f64().is_some_and(|time| time > 0.0), "{window}");
    assert_eq!((&window["path"], window["parts"].as_u64()), (&"scalar".into(), Some(1)), "{window}");
    assert!(window["why"].is_string(), "{window}");
    // 64 keys a query but for the first 63.
    assert_eq!(window["kept"], 8 * (1024 * 64 - 63 * 64 / 2), "{window}");
    assert_eq!(window["visited"], 8 * (2 * 16 - 1) * 64 * 64, "{window}");

    let plain = explain(&["full", "--len", "64", "--cpu-only"]);
    assert_eq!((&plain["score"], &plain["dtype"]), (&"plain".into(), &plain["kv_dtype"]), "{plain}");
    let more = ["full", "--len", "64", "--alibi=mpt", "--alibi-symmetric", "--softcap", "30", "--kv-dtype"];
    for where_it_runs in [&["f16"][..], &["f16", "--cpu-only"]] {
        let it = explain(&[&more, where_it_runs].concat());
        let score = "softcap:cap=30 + alibi:slopes=mpt,symmetric=true";
        assert_eq!((&it["score"], &it["dtype"]), (&score.into(), &"f32".into()), "{it}");
        assert_eq!(it["kv_dtype"], "f16", "{it}");
    }
    // What its terms need, and one more product for each pair.
    for where_it_runs in [&["--heads"][..], &["--cpu-only", "--heads"]] {
        let rows = "relative:first_distance=63,rows=64,u=true,w=true + sinks";
        let it = explain(&[&["causal", "--len", "64", "--score", rows], where_it_runs, &["2"]].concat());
        let tensors = serde_json::json!([
            {"name": "relative_rows", "elements": 2 * 64 * 64}, {"name": "relative_biases", "elements": 2 * 2 * 64},
            {"name": "sinks", "elements": 2},
        ]);
        assert_eq!(it["score_tensors"], tensors, "{it}");
        let kept = 2 * 64 * 65 / 2;
        assert_eq!(
            (&it["kept"], it["useful_flops"].as_f64()),
            (&kept.into(), Some(f64::from(kept * 2 * 3 * 64)))
        );
    }
    let none = explain(&["causal", "--len", "8", "--kv-len", "0"]);
    assert_eq!((&none["kept"], &none["visited"]), (&0.into(), &0.into()), "{none}");

    let text = wgpu_attention(["explain", "--pattern", "causal", "--len", "1048576", "--cpu-only"]).good();
    assert!(text.contains("\nkept        549 756 338 176 pairs"), "{text}");
    assert!(text.contains("\npath        scalar: no adapter was asked"), "{text}");
    let text =
        wgpu_attention(["explain", "--pattern", "causal", "--len", "64", "--score", "sinks", "--cpu-only"])
            .good();
    assert!(text.contains("\nscore       sinks; sinks 4 bytes\n"), "{text}");
}

/// Without a device the same is said as with one, as far as it can be said: how the keys are split, and the scratch of that,
/// depend on the device.
#[test]
fn a_plan_on_paper_is_that_on_a_device() {
    for args in [
        &["causal", "--len", "500", "--kv-len", "700", "--heads", "3"][..],
        &["causal", "--len", "100", "--heads", "8", "--head-dim", "576", "--value-dim", "512"],
        &["strided:stride=32,part=both,causal=true", "--len", "1024", "--heads", "2", "--batch", "2"],
        &["strided:stride=32,part=both,causal=true", "--len", "1024", "--dtype", "f16", "--value-dim", "50"],
        &["strided:stride=32,part=both,causal=true", "--len", "1024", "--dtype", "bf16", "--no-lowering"],
        &["key_lengths:lengths=[40,90]", "--len", "90", "--batch", "2", "--heads", "4", "--kv-heads", "2"],
    ] {
        let device = explain(args);
        let paper = explain(&[args, &["--cpu-only"]].concat());
        assert!(device["adapter"].is_string() && paper["adapter"].is_null(), "{device} {paper}");
        for key in ["parts", "kept", "visited", "mask_bytes", "path", "waste", "useful_flops"] {
            assert_eq!(device[key], paper[key], "{key}: {args:?}");
        }
        if device["splits"] == paper["splits"] {
            assert_eq!(device["scratch_bytes"], paper["scratch_bytes"], "{args:?}");
        }
    }
}

#[test]
fn explanations_that_cannot_be() {
    for (args, needle) in [
        (&["full", "--len", "8", "--head-dim", "0"][..], "head_dim: need 1 to 576, got 0"),
        (
            &["full", "--len", "8", "--heads", "6", "--kv-heads", "4"],
            "kv_heads: need a divisor of heads (6), got 4",
        ),
        (&["full", "--len", "5000000000"], "need"),
        (&["full", "--len", "8", "--softcap", "-1"], "softcap: need a finite normal number above 0, got -1"),
        (&["strided:stride=0,part=both,causal=true", "--len", "8"], "stride"),
        (
            &["full", "--len", "8", "--score", "relative:first_distance=7,rows=8"],
            "relative: need rows of the distances -7 to 7, which the pattern keeps, or `clip`, got rows of 0 to 7",
        ),
    ] {
        let error = wgpu_attention(["explain", "--cpu-only", "--pattern"].iter().chain(args)).refused(1);
        assert!(error.contains(needle), "{args:?}: {error}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let text = wgpu_attention(["--help"]).good();
    for command in ["demo", "adapters", "verify", "run", "draw", "explain"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command}: {text}");
        let help = wgpu_attention([command, "--help"]).good();
        assert!(help.contains(&format!("Usage: wgpu-attention {command}")), "{help}");
        let example = help.contains(&format!("\n  wgpu-attention {command} "));
        assert!(example || ["demo", "adapters"].contains(&command), "{help}");
    }
}
