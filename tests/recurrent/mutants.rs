//! Faults planted in the shader texts: the checks must find them.

use super::{Checked, bounds, counts, relations};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{Gpu, Options};
use wgpu_attention_testing::gpu_with;
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/recurrent.rs"]
mod table;

/// The edited kernels with both kinds of tiles.
type Subject = [Gpu; 2];

const SUITE: Suite<Subject> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("counts", |s| each(s, counts::counts)),
        ("carried", |s| each(s, counts::carried)),
        ("bounds", |s| each(s, bounds::selection)),
        ("directions", |s| each(s, relations::directions)),
        ("layers", |s| each(s, relations::layers)),
        ("strange", |s| each(s, relations::strange)),
    ],
};

fn subject(edit: Edit) -> Subject {
    [TileKind::Staged, TileKind::Direct].map(|kind| {
        let (gpu, edit) = (gpu_with(Options::default().tile_kind(kind)), edit.clone());
        let kernels = gpu.kernels().edited(move |text| edit(text));
        gpu.with_kernels(kernels)
    })
}

fn each(subject: &Subject, check: fn(&Gpu) -> Checked) -> Checked {
    subject.iter().try_for_each(check)
}

#[test]
fn the_checks_pass_without_faults() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
