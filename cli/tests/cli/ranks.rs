//! `explain --ranks`: what passes over several ranks cost.

use super::support::{golden, wgpu_attention};
use serde_json::Value;

const MACHINE: [&str; 4] = ["--network", "100,2", "--flops", "100e12"];

fn explain(args: &[&str]) -> Value {
    let outcome = wgpu_attention([&["explain", "--json", "--pattern"], args, &MACHINE].concat());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.json().remove(0)
}

fn plan<'a>(explained: &'a Value, pass: &str, rows: &str, travel: &str) -> &'a Value {
    let mut plans = explained["plans"].as_array().expect("plans").iter();
    let is = |plan: &&Value| plan["pass"] == pass && plan["rows"] == rows && plan["travel"] == travel;
    plans.find(is).expect("it is among them")
}

fn list(plan: &Value, key: &str) -> Vec<u64> {
    let of = plan["by_rank"][key].as_array().expect(key);
    of.iter().map(|it| it.as_u64().expect("a count")).collect()
}

#[test]
fn ranks_are_explained() {
    let causal = explain(&["causal", "--len", "4096", "--heads", "2", "--dtype", "f16", "--ranks", "4"]);
    assert_eq!((&causal["kept"], &causal["ranks"]), (&(2 * 4096 * 4097 / 2).into(), &4.into()), "{causal}");
    assert_eq!(causal["plans"].as_array().map(Vec::len), Some(12), "{causal}");
    // Two stripes of 512 keys per rank. What lies behind a rank's late stripe it does not need: all but the first rank get one
    // stripe only of those before them.
    let zig_zag = plan(&causal, "forward", "zig_zag", "needed");
    let (keys_in, keys_out) = ([3072, 2560, 2048, 1536], [1536, 2048, 2560, 3072]);
    // A header; k and v of 2 heads of 64 f16 each.
    assert_eq!(list(zig_zag, "received_bytes"), keys_in.map(|keys| 3 * 16 + keys * 2 * 128 * 2));
    assert_eq!((list(zig_zag, "sent_messages"), list(zig_zag, "steps")), (vec![3; 4], vec![4; 4]));
    assert_eq!(
        (&zig_zag["imbalance"], list(zig_zag, "kept").iter().sum()),
        (&1.0.into(), 2 * 4096 * 4097 / 2)
    );
    // The gradients of what was sent come back in f32.
    let backward = plan(&causal, "backward", "zig_zag", "needed");
    let back = std::array::from_fn::<_, 4, _>(|n| 6 * 16 + 2 * 128 * (keys_in[n] * 2 + keys_out[n] * 4));
    assert_eq!(list(backward, "received_bytes"), back);
    // In natural order the first rank needs nobody's keys, and gets them only where all are handed on.
    let [needed, shards] = ["needed", "shards"].map(|travel| plan(&causal, "forward", "contiguous", travel));
    assert_eq!(
        (list(needed, "received_messages"), list(shards, "received_messages")),
        (vec![0, 1, 2, 3], vec![3; 4])
    );
    assert!(needed["imbalance"].as_f64() > Some(1.7), "{needed}");
}

/// The rank that holds the global row needs all keys, unless its few queries go to them.
#[test]
fn global_rows_travel_where_that_is_less() {
    let global = explain(&["global:tokens=[3]", "--len", "16384", "--heads", "1", "--ranks", "8"]);
    let [shared, needed] = ["shared", "needed"].map(|travel| plan(&global, "forward", "contiguous", travel));
    // 64 queries of 64 f32 and 64 keys and values travel; the results of 64 queries come back.
    assert_eq!(list(shared, "received_messages"), [3, 3, 2, 2, 1, 1, 1, 1], "{shared}");
    assert_eq!(list(shared, "received_bytes")[7], 16 + 64 * 3 * 64 * 4);
    assert_eq!(list(needed, "received_bytes")[0], 7 * (16 + 2048 * 2 * 64 * 4));
}

/// Nobody holds the whole tensors, whose offsets would pass 32 bits.
#[test]
fn sixteen_million_tokens_on_thousands_of_ranks() {
    let sizes =
        ["--len", "16777216", "--heads", "8", "--head-dim", "128", "--dtype", "f16", "--ranks", "4096"];
    let window = explain(&[&["window:before=1023,after=0"][..], &sizes].concat());
    let forward = plan(&window, "forward", "contiguous", "needed");
    assert!(forward["efficiency"].as_f64() > Some(0.99), "{}", forward["efficiency"]);
    let args = ["explain", "--pattern", "causal", "--len", "4096", "--ranks", "8"];
    let text = wgpu_attention([&args[..], &MACHINE].concat()).good();
    assert!(text.contains("\nranks       8, 100 TFLOP/s each, 100 GB/s and 2 us per message"), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("forward")).collect();
    assert!(lines.len() == 6 && lines[4].contains("zig_zag     needed"), "{text}");
}

#[test]
fn what_ranks_cannot_do_is_said() {
    let refused = |args: &[&str], code: i32| {
        wgpu_attention([&["explain", "--len", "256"], args].concat()).refused(code)
    };
    let causal = ["--pattern", "causal"];
    for (args, code, words) in [
        (&["--ranks", "4"][..], 2, ["--network", "--flops"]),
        (&["--network", "100,2"], 2, ["--ranks", "required"]),
        (&["--ranks", "4", "--network", "100", "--flops", "1e12"], 2, ["--network", "need GB/s and us"]),
        (
            &["--ranks", "4", "--network", "100,2", "--flops", "0"],
            2,
            ["--flops", "need a finite number above 0"],
        ),
        (&["--ranks", "0", "--network", "100,2", "--flops", "1e12"], 1, ["ranks: need at least 1", "got 0"]),
        (&["--ranks", "20000", "--network", "100,2", "--flops", "1e12"], 1, ["ranks needs 20000", "16384"]),
        (
            &["--ranks", "4", "--network", "1,2", "--flops", "1", "--no-lowering"],
            2,
            ["--ranks", "--no-lowering"],
        ),
        (&["--ranks", "4", "--network", "1,2", "--flops", "1", "--kv-heads", "3"], 1, ["kv_heads", "got 3"]),
    ] {
        let error = refused(&[&causal, args].concat(), code);
        assert!(words.iter().all(|word| error.contains(word)), "{args:?}: {error}");
    }
    let error = refused(&["--linear", "elu", "--ranks", "4", "--network", "1,2", "--flops", "1"], 2);
    assert!(error.contains("--linear") && error.contains("--ranks"), "{error}");
    let file = golden("reformer_hf_lsh_s64_c16_h2");
    let file = file.to_str().expect("UTF-8");
    let error =
        wgpu_attention(["explain", "--input", file, "--ranks", "4", "--network", "1,2", "--flops", "1"])
            .refused(2);
    assert!(error.contains("--input"), "{error}");
}
