//! The fuzz targets' seeds, and what fuzzing found, replayed: none may panic, hang or allocate without bound, and those named
//! `good_` are accepted, so that the targets reach what they are for. `docs/FUZZING.md` says how they are made.

use std::path::Path;
use wgpu_attention_fuzzing as fuzz;

/// Replays a folder of seeds, of which there are at least so many.
fn replay(target: &str, least: usize, run: fn(&[u8]) -> Result<(), fuzz::Refused>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut good = 0;
    for file in files.map(|file| file.unwrap().path()) {
        let started = std::time::Instant::now();
        let outcome = run(&std::fs::read(&file).unwrap());
        let seconds = started.elapsed().as_secs_f64();
        assert!(seconds < 10.0, "{} took {seconds} s", file.display());
        if file.file_name().unwrap().to_string_lossy().starts_with("good_") {
            outcome.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            good += 1;
        }
    }
    assert!(good >= least, "only {good} good seeds in {}", folder.display());
}

#[test]
fn layouts() {
    replay("layouts", 2, fuzz::layouts);
}

#[test]
fn patterns() {
    replay("pattern", 20, fuzz::pattern);
}

#[test]
fn cases() {
    replay("case", 10, fuzz::case);
}

#[test]
fn models() {
    replay("model", 2, fuzz::model);
}
