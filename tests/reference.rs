//! The f64 reference, its error bound, and the harness that compares kernels with it.

#[path = "reference/backward_simulator.rs"]
mod backward_simulator;
#[path = "reference/bound.rs"]
mod bound;
#[path = "reference/formula.rs"]
mod formula;
#[path = "reference/gradient.rs"]
mod gradient;
#[path = "reference/gradient_bound.rs"]
mod gradient_bound;
#[cfg(feature = "serde")]
#[path = "reference/gradient_golden.rs"]
mod gradient_golden;
#[path = "reference/harness.rs"]
mod harness;
#[path = "reference/lsh_gradient.rs"]
mod lsh_gradient;
#[path = "reference/masks.rs"]
mod masks;
#[path = "reference/oracles.rs"]
mod oracles;
#[path = "reference/properties.rs"]
mod properties;
#[path = "reference/rounding.rs"]
mod rounding;
#[path = "reference/scores.rs"]
mod scores;
#[path = "reference/simulator.rs"]
mod simulator;
