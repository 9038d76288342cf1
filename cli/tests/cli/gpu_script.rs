//! `benches/gpu.sh run`, on programs that stand for ours: what fails and what does not end does not stop the rest, and the page says so.
#![cfg(target_os = "linux")]

use crate::support::{Scratch, workspace};
use std::path::Path;
use std::process::Command;

/// The command line on two adapters: cases of 16 bits fail on the second, which is the GPU.
const PROGRAM: &str = r#"#!/bin/sh
record() { while [ $# -gt 0 ]; do [ "$1" = --json ] && echo '{}' >"$2"; shift; done; }
case "$*" in
"adapters --json") echo '{"index":0,"type":"Cpu"}'; echo '{"index":1,"type":"DiscreteGpu"}' ;;
adapters) echo "the self-test passed" ;;
report*--predictions*) echo "| dq | confirmed |" ;;
report*--markdown*) echo "| a case |" ;;
report*) ;;
*--adapter\ 1*) record "$@"; case "$*" in *f16,bf16*) echo "out of their bounds"; exit 1 ;; esac ;;
*) echo "not on the GPU: $*" >&2; exit 9 ;;
esac
"#;

/// Programs of tests: one has a test that fails and one that does not end, one the latter alone.
const FAILS: &str = r#"#!/bin/sh
case "$*" in
--list*) printf 'sums: test\nthreads: test\nslow: test\n' ;;
*) echo "test sums ... ok"; echo "test threads ... FAILED"; sleep 60 ;;
esac
"#;
const HANGS: &str = r#"#!/bin/sh
case "$*" in
--list*) printf 'fast: test\nendless: test\n' ;;
*) echo "test fast ... ok"; sleep 60 ;;
esac
"#;
const PASSES: &str = r#"#!/bin/sh
case "$*" in --list*) echo "one: test" ;; *) echo "test one ... ok" ;; esac
"#;

fn write(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("made executable");
}

#[test]
fn a_run_says_what_passed_what_failed_and_what_was_not_run() {
    let scratch = Scratch::new("gpu-script");
    let programs = scratch.path().join("programs");
    std::fs::create_dir_all(&programs).expect("a folder");
    write(&programs, "wgpu-attention", PROGRAM);
    for test in ["decode", "linear", "integers", "recurrent", "layer", "heads", "api", "tune", "backward"] {
        write(&programs, &format!("test-{test}"), PASSES);
    }
    write(&programs, "test-kernels", FAILS);
    write(&programs, "test-lsh", HANGS);
    let archive = scratch.path().join("programs.tar.xz");
    let packed = Command::new("tar").arg("cf").arg(&archive).arg("-C").arg(&programs).arg(".").status();
    assert!(packed.expect("tar").success());

    let results = scratch.path().join("results");
    let start = std::time::Instant::now();
    let run = Command::new("bash")
        .arg(workspace().join("benches/gpu.sh"))
        .args(["run", scratch.path().to_str().expect("UTF-8"), "45"])
        .env("OUT", &results)
        .env_remove("LAUNCH")
        .env_remove("TESTS")
        .output()
        .expect("bash");
    assert!(start.elapsed().as_secs() < 60, "the deadline is held");
    let said = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(said.ends_with("failed: golden-16-bits test-kernels\n"), "{said}");
    let page = std::fs::read_to_string(results.join("page.md")).expect("the page");
    for part in [
        "Tests: 11 passed, 1 failed, 2 not run.",
        "| golden | passed |",
        "| golden-16-bits | **failed**, status 1 |",
        "| test-kernels | **1 passed, 1 failed, 1 not run**, status 124 |",
        "| test-lsh | 1 passed, 0 failed, 1 not run |",
        "| test-tune | 1 passed, 0 failed, 0 not run |",
        "| peers | not run: no programs in FOLDER/peers |",
        "| bench-standard | passed |",
        "out of their bounds",
        "the self-test passed",
        "| dq | confirmed |",
        "| a case |",
        "<details><summary>test-lsh: 1</summary>\n\n- endless\n",
        "<details><summary>test-kernels: 1</summary>\n\n- slow\n",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let mut files: Vec<_> = std::fs::read_dir(&results)
        .expect("results")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, ["all.tar.gz", "page.md", "predictions.json", "quick.json", "standard.json"]);
}

#[test]
fn a_machine_without_an_adapter_says_so() {
    let scratch = Scratch::new("gpu-script-none");
    let programs = scratch.path().join("programs");
    std::fs::create_dir_all(&programs).expect("a folder");
    write(&programs, "wgpu-attention", "#!/bin/sh\necho 'error: no GPU adapter' >&2\nexit 1\n");
    let archive = scratch.path().join("programs.tar.xz");
    let packed = Command::new("tar").arg("cf").arg(&archive).arg("-C").arg(&programs).arg(".").status();
    assert!(packed.expect("tar").success());
    let results = scratch.path().join("results");
    let run = Command::new("bash")
        .arg(workspace().join("benches/gpu.sh"))
        .args(["run", scratch.path().to_str().expect("UTF-8"), "30"])
        .env("OUT", &results)
        .env_remove("LAUNCH")
        .env_remove("TESTS")
        .output()
        .expect("bash");
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let page = std::fs::read_to_string(results.join("page.md")).expect("the page");
    assert!(page.contains("| adapters | **failed**: no adapter |"), "{page}");
    assert!(page.contains("error: no GPU adapter"), "{page}");
}
