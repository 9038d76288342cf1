//! What the kernel tests have for attention: cases, patterns, guarded buffers, parts.
#![allow(dead_code)] // The tests use more of it.

#[path = "../../../tests/support/case.rs"]
mod case;
#[path = "../../../tests/support/draw.rs"]
mod draw;
#[path = "../../../tests/support/guards.rs"]
mod guards;
#[path = "../../../tests/support/layouts.rs"]
mod layouts;
#[path = "../../../tests/support/parts.rs"]
mod parts;
#[path = "../../../tests/support/patterns.rs"]
mod patterns;
#[path = "../../../tests/support/run.rs"]
mod run;

pub(crate) use case::{BiasValues, Case};
pub(crate) use draw::Draw;
pub(crate) use guards::POISON;
pub(crate) use layouts::Placement;
pub(crate) use parts::{Cut, cut};
pub(crate) use patterns::{PATTERNS, Picked, picked};
pub(crate) use run::Bound;
