//! Faults planted in the shader texts: the checks must find them.

use super::{backward, forward, untouched};
use wgpu_attention::{Gpu, Options};
use wgpu_attention_testing::gpu_with;
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/heads.rs"]
mod table;

const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("by head", forward::by_head),
        ("merged", forward::merged),
        ("gradients", backward::by_head),
        ("alone", untouched::alone),
    ],
};

fn subject(edit: Edit) -> Gpu {
    let gpu = gpu_with(Options::default().splits(1));
    let kernels = gpu.kernels().edited(move |text| edit(text));
    gpu.with_kernels(kernels)
}

#[test]
fn the_checks_pass_without_faults() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
