//! Texts token by token: against whole passes in f64, against Hugging Face's logits, counted, and sampled.
//!
//! | file | what |
//! |---|---|
//! | `model.rs` | golden models as files of their own, whole passes over a text |
//! | `tokens.rs` | logits and greedy tokens of every step, in chunks of any length, in every storage |
//! | `integers.rs` | weights of integers: against a twin of the numbers that they stand for, their bytes, what they lose |
//! | `counted.rs` | a token takes nothing but its commands |
//! | `sampling.rs` | which token comes next: distributions, ties, what is no number |
//! | `bands.rs` | tables past the largest binding of a device: the bits of those that are bound whole |
//! | `refusals.rs` | files, configurations and calls that are wrong |
//! | `folder.rs` | Hugging Face's layout: shards, ends of texts |

mod bands;
mod counted;
mod folder;
mod integers;
mod model;
mod refusals;
mod sampling;
mod tokens;
