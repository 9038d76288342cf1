//! Faults planted in the shader texts: the checks must find them.

use crate::{product, quantize, weights};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{Gpu, Options};
use wgpu_attention_testing::gpu_with;
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/integers.rs"]
mod table;

/// The edited kernels with both kinds of tiles.
type Subject = [Gpu; 2];

const SUITE: Suite<Subject> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("quantize", |s| quantize::selection(&s[0])),
        ("strange", |s| quantize::strange(&s[0])),
        ("numbers", |s| quantize::numbers_selection(&s[0])),
        ("weights", |s| s.iter().try_for_each(weights::selection)),
        ("product", |s| product::selection(&s[0])),
    ],
};

fn subject(edit: Edit) -> Subject {
    [TileKind::Staged, TileKind::Direct].map(|kind| {
        let (gpu, edit) = (gpu_with(Options::default().tile_kind(kind)), edit.clone());
        let kernels = gpu.kernels().edited(move |text| edit(text));
        gpu.with_kernels(kernels)
    })
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
