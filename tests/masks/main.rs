//! Block masks against the one thing that defines them, `Pattern::keep`: every pattern with varied parameters and
//! lengths, in closed form and by scan, packed, transposed, counted, drawn.
//!
//! | file | what |
//! |---|---|
//! | `drawn.rs` | masks, patterns and lengths as proptest draws them |
//! | `properties.rs` | what holds for every pattern, with varied parameters and lengths |
//! | `oracle.rs` | the oracle catches what is wrong |
//! | `cost.rs` | size and cost |
//! | `edges.rs` | edges |
//! | `identity.rs` | patterns compared, hashed and cloned |
//! | `refusals.rs` | bad input |
//! | `pictures.rs` | pictures |
//! | `planning.rs` | what planning costs and what its plans waste |

mod cost;
mod drawn;
mod edges;
mod identity;
mod oracle;
mod pictures;
mod planning;
mod properties;
mod refusals;
