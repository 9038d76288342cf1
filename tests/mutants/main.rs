//! Faults planted in the shader text: the checks must find them.
//!
//! | file | what |
//! |---|---|
//! | `table/` | the faults, of all kernels: a new one is an entry there |
//! | `checks.rs`, `strange.rs` | the checks of attention, a small selection of the suite's |
//!
//! The checks of the other kernels are with their tests: `tests/backward/mutants.rs`, `tests/lsh/mutants.rs`,
//! `tests/heads/mutants.rs`, `tests/integers/mutants.rs`, `tests/layer/mutants.rs`, `tests/linear/mutants.rs`,
//! `tests/decode/mutants.rs`.

mod checks;
mod strange;
/// The faults.
mod table {
    pub(crate) mod attention;
    pub(crate) mod backward;
    pub(crate) mod backward_cooperative;
    pub(crate) mod decode;
    pub(crate) mod heads;
    pub(crate) mod integers;
    pub(crate) mod layer;
    pub(crate) mod linear;
    pub(crate) mod lsh;
    pub(crate) mod lsh_backward;
    pub(crate) mod recurrent;
}

use checks::{CHECKS, Subject};
use wgpu_attention_testing as support;
use wgpu_attention_testing::mutants::{Suite, every_mutant_changes_some_shader};

const SUITE: Suite<Subject> =
    Suite { mutants: table::attention::MUTANTS, subject: Subject::new, checks: CHECKS };

#[test]
fn the_checks_pass_on_the_shaders_as_they_are() {
    SUITE.pass_without_faults();
}

#[test]
fn the_checks_kill_the_mutants() {
    SUITE.kill_the_mutants();
}

#[test]
fn every_mutant_of_every_table_changes_some_shader() {
    // Without a device: the tables are right even where no check compiles the variant.
    let shaders = wgpu_attention::wgsl::variants();
    for mutants in [
        table::attention::MUTANTS,
        table::backward::MUTANTS,
        table::backward_cooperative::MUTANTS,
        table::decode::MUTANTS,
        table::heads::MUTANTS,
        table::integers::MUTANTS,
        table::layer::MUTANTS,
        table::linear::MUTANTS,
        table::lsh::MUTANTS,
        table::lsh_backward::MUTANTS,
        table::recurrent::MUTANTS,
    ] {
        every_mutant_changes_some_shader(mutants, &shaders);
    }
}
