//! The program: recording needs no device, and whoever replays finds all it needs; a wrong result is a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("conformance-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn conformance(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance")).args(arguments).output().expect("the program starts")
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

#[test]
fn a_recorded_case_is_whole() {
    let folder = Folder::new("whole");
    let at = folder.0.to_str().expect("a plain path");
    let only = "attention, merging parts f16: Staged Gathers, Bound";
    assert!(conformance(&["export", at, "--only", only]).status.success());
    assert_eq!(json(&folder.0.join("cases.json")), serde_json::json!(["case0"]));
    let case = json(&folder.0.join("case0/case.json"));
    assert_eq!(case["case"], only);
    // Three parts and the merge; out and lse.
    assert_eq!(case["dispatches"].as_array().unwrap().len(), 4);
    assert_eq!(case["outputs"].as_array().unwrap().len(), 2);
    for pipeline in case["pipelines"].as_array().unwrap() {
        let text =
            fs::read_to_string(folder.0.join("case0").join(pipeline["shader"].as_str().unwrap())).unwrap();
        assert!(text.contains(&format!("fn {}(", pipeline["entry"].as_str().unwrap())));
    }
    for dispatch in case["dispatches"].as_array().unwrap() {
        let group = &case["groups"][dispatch["group"].as_u64().unwrap() as usize];
        // A uniform buffer with the parameters, written before the dispatch, with a dynamic offset.
        let params = &case["buffers"][group["buffers"][0][1].as_u64().unwrap() as usize];
        let data = fs::read(folder.0.join("case0").join(params["data"].as_str().unwrap())).unwrap();
        assert_eq!(data.len() as u64, params["bytes"].as_u64().unwrap());
        assert_eq!(dispatch["dynamic_offsets"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn what_a_replay_leaves_is_judged() {
    let folder = Folder::new("judged");
    let at = folder.0.to_str().expect("a plain path");
    let (out, set) = (folder.0.join("out.jsonl"), ["--only", "residual f32: width 7 -> f32"]);
    let judge = || conformance(&[&["judge", at, "--out", out.to_str().unwrap()], &set[..]].concat());
    assert!(conformance(&[&["export", at], &set[..]].concat()).status.success());
    let device = r#"{"adapter":"none","driver":"none","through":"a test"}"#;
    fs::write(folder.0.join("adapter.json"), device).unwrap();
    let lines = || fs::read_to_string(&out).unwrap();
    // No result.
    assert!(!judge().status.success());
    assert!(lines().contains("failed"), "{}", lines());
    // Poison, as if nothing had been computed.
    let case = json(&folder.0.join("case0/case.json"));
    let output = case["outputs"][0].as_u64().unwrap() as usize;
    let before =
        fs::read(folder.0.join("case0").join(case["buffers"][output]["data"].as_str().unwrap())).unwrap();
    fs::write(folder.0.join("case0/out0.bin"), &before).unwrap();
    assert!(!judge().status.success());
    // The sum, as f32.
    let mut right = before;
    let tensor = |n: usize| {
        let file = case["buffers"][n]["data"].as_str().unwrap().to_string();
        fs::read(folder.0.join("case0").join(file)).unwrap()
    };
    let bound = &case["groups"][0]["buffers"];
    // [binding, buffer, offset, size]; what is not used is bound whole, without a size.
    let place = |entry: &serde_json::Value| {
        let [buffer, start, size] = [1, 2, 3].map(|n| entry[n].as_u64().map(|it| it as usize));
        Some((buffer?, start?, size?))
    };
    let inputs: Vec<_> = bound.as_array().unwrap().iter().filter_map(place).collect();
    let inputs: Vec<_> =
        inputs.into_iter().filter(|input| input.0 != output && input.2 == 33 * 7 * 4).collect();
    let [x, other] = inputs[..] else { panic!("two inputs of that size, not {inputs:?}") };
    for at in (x.1..x.1 + x.2).step_by(4) {
        let read = |bytes: &[u8]| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let sum = read(&tensor(x.0)) + read(&tensor(other.0));
        right[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(folder.0.join("case0/out0.bin"), &right).unwrap();
    let judged = judge();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    assert!(lines().contains("worst") && !lines().contains("failed"), "{}", lines());
    // A write before the tensor.
    right[0] ^= 1;
    fs::write(folder.0.join("case0/out0.bin"), &right).unwrap();
    assert!(!judge().status.success());
    // The table shows it.
    let table =
        conformance(&["table", &format!("a test={}", out.display()), "--missing", "another=not fetched"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("1 FAILED") && text.contains("missing: another: not fetched"), "{text}");
}
