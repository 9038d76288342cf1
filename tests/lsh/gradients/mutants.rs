//! Faults planted in the shader text of the gradients: the checks must find them.

use super::super::{Case, gpu};
use super::close::scored;
use super::counts::{self, count_dqk, count_dv};
use super::relations::{nothing_leaks, strange_values_show};
use wgpu_attention::reference::Kind;
use wgpu_attention::{AttentionShape, Gpu, LshOptions};
use wgpu_attention_testing::mutants::{Edit, Suite};

#[path = "../../mutants/table/lsh_backward.rs"]
mod table;

const SUITE: Suite<Gpu> = Suite {
    mutants: table::MUTANTS,
    subject,
    checks: &[
        ("rounds", |gpu| close(gpu, &case(LshOptions::new(2, 8, 24)))),
        ("one line each", |gpu| {
            let options = LshOptions::new(2, 8, 24).chain_rounds(false).wrap(false).causal(true);
            close(gpu, &case(options.key_mask(true).look_ahead(1)))
        }),
        ("once", |gpu| {
            close(gpu, &case(LshOptions::new(3, 4, 24).count_once(true).look_ahead(1).look_back(0)))
        }),
        ("own keys", |gpu| close(gpu, &case(LshOptions::new(1, 8, 24).self_penalty(0.5)))),
        ("terms", |gpu| [&scored()[3], &scored()[5]].into_iter().try_for_each(|case| close(gpu, case))),
        ("count dv", |gpu| counted(gpu, count_dv)),
        ("count dqk", |gpu| counted(gpu, count_dqk)),
        ("leaks", nothing_leaks),
        ("strange", strange_values_show),
    ],
};

fn subject(edit: Edit) -> Gpu {
    gpu().with_kernels(gpu().kernels().edited(move |text| edit(text)))
}

fn case(options: LshOptions) -> Case<f32> {
    Case::new(AttentionShape::new(2, 2, 70, 16).value_dim(8), options, Kind::Normal, 11)
}

fn close(gpu: &Gpu, case: &Case<f32>) -> Result<(), String> {
    case.gradients_close::<f32>(gpu).map(|_| ())
}

/// Two of the options, so that few shaders are compiled.
fn counted(gpu: &Gpu, count: fn(&Gpu, &Case<f32>) -> Result<(), String>) -> Result<(), String> {
    counts::options()[..2].iter().try_for_each(|options| count(gpu, &counts::case(options.clone())))
}

#[test]
fn the_checks_pass_without_faults() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_find_the_faults() {
    SUITE.kill_the_mutants();
}
