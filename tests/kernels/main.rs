//! The kernel's numbers, on whatever adapter is there. One binary, so that every pipeline is compiled once.
//!
//! | file | what |
//! |---|---|
//! | `sizes.rs` | the bound: lengths, dimensions, element types, heads |
//! | `mixed.rs` | q in f32, k and v in 16 bits |
//! | `terms.rs` | the bound: scale, temperature, softcap, ALiBi, buckets, bias |
//! | `custom.rs` | scores of the caller's own: the bound, and what they may not do |
//! | `dropout.rs` | dropout: exactly the weights that the generator says, and the bound |
//! | `formulas.rs` | calls whose result is a formula |
//! | `placement.rs` | the bound: layouts, gaps, offsets, reversed tensors, forced tiles, mask blocks |
//! | `sets.rs` | count and gather tests: the exact set of keys, for every pattern |
//! | `few_queries.rs` | keys split over workgroups, heads packed into one tile |
//! | `merging.rs` | parts, orders of queries and keys |
//! | `repeats.rs` | the same call gives the same bits; what a row does not attend does not reach it |
//! | `strange.rs` | NaN and infinity: exactly the rows that attend one are not finite |
//! | `relative.rs` | relative rows: the bound and the sets |
//! | `segments.rs` | segments: the bound and the sets |
//! | `weights.rs` | the weights of chosen rows: the bound, what is named as the largest |
//! | `wide.rs` | rows of more than 256 elements |
//! | `relations.rs` | heads permuted, scores shifted, work cut otherwise |
//! | `properties.rs` | all of it over drawn calls (proptest) |
//! | `cooperative.rs` | the cooperative path: its bound, sets, parts, rescales |
//! | `indices.rs` | no index lies outside of its buffer; unchecked kernels |
//! | `harness.rs` | the checks themselves fail where they must |

mod cooperative;
mod custom;
mod dropout;
mod few_queries;
mod formulas;
mod harness;
mod indices;
mod merging;
mod mixed;
mod placement;
mod properties;
mod relations;
mod relative;
mod repeats;
mod segments;
mod sets;
mod sizes;
mod strange;
mod terms;
mod weights;
mod wide;

use wgpu_attention_testing as support;
