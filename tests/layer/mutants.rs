//! Faults planted in the shader texts. Each must make the kernel's selection of checks fail.

use crate::harness::{cooperative, gpu};
use crate::{feed_forward, matmul, rotary, rows};
use wgpu_attention::Kernels;
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/layer.rs"]
mod table;

/// Kernels to be examined, and the same with products in cooperative matrices.
struct Subject {
    scalar: Kernels,
    matrices: Kernels,
}

impl Subject {
    fn new(edit: Edit) -> Self {
        let of = |kernels: &Kernels| {
            let edit = edit.clone();
            kernels.edited(move |text| edit(text))
        };
        Self { scalar: of(gpu().kernels()), matrices: of(&cooperative()) }
    }
}

const SUITE: Suite<Subject> = Suite {
    mutants: table::MUTANTS,
    subject: Subject::new,
    checks: &[
        ("matmul", |s| matmul::selection(&s.scalar)),
        ("few_rows", |s| crate::few_rows::selection(&s.scalar)),
        ("every_f32", |s| crate::every_f32::selection(&s.scalar)),
        ("far_rows", |s| crate::far_rows::selection(&s.scalar)),
        ("cooperative", |s| crate::cooperative::selection(&s.matrices)),
        ("rows", |s| rows::selection(&s.scalar)),
        ("cross_entropy", |s| losses(&s.scalar)),
        ("optimizer", |s| crate::optimizer::selection(&s.scalar)),
        ("clip", |s| crate::optimizer::norm_selection(&s.scalar)),
        ("activation", |s| crate::backward::activation::selection(&s.scalar)),
        ("matmul_backward", |s| crate::backward::matmul::selection(&s.scalar)),
        ("feed_forward_backward", |s| crate::backward::feed_forward::selection(&s.scalar)),
        ("feed_forward", |s| feed_forward::selection(&s.scalar)),
        ("rotary", |s| rotary::selection(&s.scalar)),
        ("rotary_tables", |s| crate::rotary_tables::selection(&s.scalar)),
        ("backward/rows", |s| crate::backward::rows::selection(&s.scalar)),
        ("backward/embed", |s| crate::backward::embed::selection(&s.scalar)),
    ],
};

/// One kernel, whatever says what is wanted.
fn losses(kernels: &Kernels) -> crate::Checked {
    crate::cross_entropy::selection(kernels)?;
    crate::distillation::selection(kernels)
}

#[test]
fn the_checks_kill_the_mutants() {
    SUITE.kill_the_mutants();
}
