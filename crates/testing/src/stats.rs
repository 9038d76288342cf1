use super::{BiasValues, Case, Checked};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use wgpu_attention::reference::Report;
use wgpu_attention::{KernelPath, Options, Storage};

/// By element types: calls verified, rows, and the worst error/bound of out and of lse with their places.
static WORST: Mutex<BTreeMap<String, Worst>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Worst {
    calls: usize,
    rows: usize,
    out: (f64, String),
    lse: (f64, String),
}

/// Remembers what was verified. Under huge biases rounding alone moves a score by many nats: the bound is then the spread
/// of v, and the clamp's own error for lse, and its share says nothing of precision.
pub(super) fn record(case: &Case, report: &Report) {
    if !report.pass {
        return;
    }
    let Storage { q, kv, out, .. } = case.attention.storage;
    let name = if q == kv { format!("{q} -> {out}") } else { format!("{q}/{kv} -> {out}") };
    let mut worst = WORST.lock().unwrap_or_else(PoisonError::into_inner);
    let worst = worst.entry(name).or_default();
    worst.calls += 1;
    worst.rows += report.rows_checked;
    let tells = case.bias_strides().is_none() || case.bias != BiasValues::Floors;
    for (place, found) in [(&mut worst.out, report.worst_out), (&mut worst.lse, report.worst_lse)] {
        if let Some(found) = found.filter(|found| tells && found.ratio > place.0) {
            *place = (found.ratio, format!("{found}\n      {case}"));
        }
    }
}

/// Prints what was verified so far (`--nocapture` shows it).
pub fn summary(test: &str) {
    let worst = WORST.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{test}: worst error/bound of this binary so far");
    for (name, Worst { calls, rows, out, lse }) in worst.iter() {
        println!("  {name}: out {:.4}, lse {:.4} in {calls} calls, {rows} rows", out.0, lse.0);
        println!("    out {}\n    lse {}", out.1, lse.1);
    }
}

/// Runs a check over cases, under the kinds of tile that are their turn unless the case forces one or another path; says how long it took,
/// and fails with all that failed. Checks whose names are the same up to a colon take one kind for what shares a pipeline.
pub fn check_all(test: &str, cases: impl IntoIterator<Item = Case>, check: impl Fn(&Case) -> Checked) {
    let start = Instant::now();
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases.into_iter().flat_map(|case| under_tiles(test, case)) {
        let start = Instant::now();
        count += 1;
        if let Err(failure) = check(&case) {
            failures.push(failure);
        }
        if start.elapsed() > Duration::from_secs(5) {
            println!("{test}: slow, {:.1} s: {case}", start.elapsed().as_secs_f64());
        }
    }
    println!("{test}: {count} cases in {:.1} s", start.elapsed().as_secs_f64());
    assert!(count > 0, "{test}: no case");
    let shown = failures.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{test}: {} of {count} cases failed\n{shown}", failures.len());
}

fn under_tiles(test: &str, case: Case) -> Vec<Case> {
    let Options { tile, tile_kind, path, .. } = case.options;
    if tile.is_some() || tile_kind.is_some() || path == Some(KernelPath::Cooperative) {
        return vec![case];
    }
    let of = |kind| Case { options: case.options.tile_kind(kind), ..case.clone() };
    let together = test.split(':').next().unwrap_or_default();
    let variant = case.variant().map(|variant| format!("{together}: {variant}"));
    crate::kinds_of_tile(variant.as_deref()).into_iter().map(of).collect()
}
