//! Faults planted in the text of the gradients on cooperative matrices: the checks must find them.

use crate::cooperative::{close_on_matrices, counts_on, leaks_on, sizes_on};
use crate::in_f16::options;
use crate::relations::strange_values_show;
use crate::support::{Case, cooperative};
use wgpu_attention::ElementType::{F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, Causal, Gpu, Storage};
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../mutants/table/backward_cooperative.rs"]
mod table;

const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("close", |gpu| {
            let shape = AttentionShape::new(2, 4, 70, 20).kv_heads(2).kv_len(150).value_dim(12);
            [Kind::Normal, Kind::Peaky].into_iter().try_for_each(|kind| closed(gpu, &case(shape).kind(kind)))
        }),
        ("wide", |gpu| closed(gpu, &case(AttentionShape::new(1, 2, 70, 64).kv_heads(1).kv_len(99)))),
        ("sizes", sizes_on),
        ("counts", counts_on),
        ("leaks", leaks_on),
        ("strange", strange_values_show),
    ],
};

fn subject(edit: Edit) -> Gpu {
    let gpu = cooperative(options());
    gpu.with_kernels(gpu.kernels().edited(move |text| edit(text)))
}

fn case(shape: AttentionShape) -> Case {
    Case::new(shape).storage(Storage::all(F16).out(F32)).options(options()).pattern(Causal)
}

fn closed(gpu: &Gpu, case: &Case) -> Result<(), String> {
    close_on_matrices(gpu, case, &case.parts())
}

#[test]
fn the_checks_pass_on_the_shaders_as_they_are() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_kill_the_mutants() {
    SUITE.kill_the_mutants();
}
