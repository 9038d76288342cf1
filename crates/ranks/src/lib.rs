//! Exact attention, and its gradients, over a sequence that several ranks hold together.
//!
//! Each rank holds its rows of q, k and v in host memory, and gets its rows of out, dq, dk and dv. Keys and values travel; a rank
//! attends what it needs of each other rank in turn, on its own device, and merges the results by their states (m, l), as the
//! parts of one call are merged (Ring Attention, Liu et al. 2023; log-sum-exp merging, Dao et al. 2022).
//!
//! * **Ring order.** In step s, rank r works on keys of rank r - s: the order of merging follows from the ranks' numbers, never from
//!   when a message comes, so that two runs give the same bits. Keys come from their owner directly: for a full mask as many
//!   bytes as in a ring, for a sparse one only the key blocks that a rank's queries attend.
//! * **Overlap.** The messages of step s + 1 are on their way while the kernel of step s runs.
//! * **Zig-zag.** [`Plan::zig_zag`] gives rank r the stripes r and 2 R - 1 - r, so that under a causal mask no rank waits for another.
//! * **Few rows that meet all.** Queries that attend nearly everything travel in place of the keys, and keys that all ranks ask for are handed on
//!   along a tree: [`Sharing`](wgpu_attention::ranks::Sharing). Their states and gradients come back along the same tree, added in its order.
//! * **Gradients** of keys that travelled go back to their owner, who sums them in the order of the steps.
//! * **Faults.** A message that does not come in time, a rank that is gone, a rank that was given another call: an
//!   [`Error`] that names the rank, on every rank that needs it; never a wait without end, never a part of a result.
//!
//! How bytes get from rank to rank is an [`Exchange`]: [`Threads`] for ranks in threads of one process, with which all of this is
//! tested, MPI in the crate `wgpu-attention-mpi`, or your own.
//!
//! ```no_run
//! use wgpu_attention::{AttentionShape, Causal, Gpu};
//! use wgpu_attention_ranks::{DistributedAttention, Plan, Threads};
//!
//! let (gpu, shape) = (Gpu::new()?, AttentionShape::new(1, 8, 4096, 64));
//! std::thread::scope(|scope| {
//!     for exchange in Threads::new(4) {
//!         let gpu = &gpu;
//!         scope.spawn(move || -> wgpu_attention_ranks::Result<()> {
//!             let plan = Plan::zig_zag(&shape, 4)?;
//!             let mut attention = DistributedAttention::with(exchange, gpu, &shape, &Causal, plan)?;
//!             // This rank's rows of q, k and v: [1, 8, rows, 64].
//!             let own = attention.own_shape();
//!             let [q, k, v] = [own.len_q(), own.len_k(), own.len_v()].map(|len| vec![0.1f32; len]);
//!             let result = attention.forward(&q, &k, &v)?;
//!             let gradients = attention.backward(&q, &k, &v, &result, &vec![1.0; result.out.len()])?;
//!             println!("{:?}", &gradients.dk[..4]);
//!             Ok(())
//!         });
//!     }
//! });
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # What is left out
//!
//! * Terms of the score that go by position or bring a tensor (ALiBi, biases, relative rows, segments, sinks, dropout): a call of a rank has
//!   positions of its own, and would give them others. Scale and softcap are there; anything else is refused.
//! * LSH attention (Reformer): which keys a query meets follows from sorting all of them by their hash, so each round would be a sort of
//!   the whole sequence over the ranks, whose messages depend on the data.
//! * [Pieces](wgpu_attention::Pattern::pieces) of scattered patterns (strided ones): their blocks are visited in natural order.
//!
//! | file | what |
//! |---|---|
//! | `attention.rs`, `forward.rs`, `backward.rs` | [`DistributedAttention`]: what it is made of, forward, gradients |
//! | `plan.rs` | [`Plan`]: who holds what, how long to wait |
//! | `routes.rs` | which rows go where, as the ranks settle it |
//! | `ring.rs`, `common.rs` | messages of the steps; rows that all ranks get, along a tree, and what comes back for them |
//! | `steps.rs` | what a rank computes in each step, planned |
//! | `handshake.rs`, `pattern.rs` | that all ranks were given the same call |
//! | `session.rs` | rounds of messages, their headers, their time limit |
//! | `exchange.rs`, `threads.rs` | [`Exchange`], and the one between threads |
//! | `traffic.rs` | [`Traffic`]: what was sent |
//! | `merge.rs`, `rows.rs` | sums by state; rows taken out and added |
//! | `error.rs` | [`Error`] |

#![cfg_attr(test, allow(clippy::single_range_in_vec_init, reason = "a list of one stretch is meant"))]

mod attention;
mod backward;
mod common;
mod error;
mod exchange;
mod forward;
mod handshake;
mod merge;
mod pattern;
mod plan;
mod ring;
mod routes;
mod rows;
mod session;
mod steps;
mod threads;
mod traffic;

pub use attention::DistributedAttention;
pub use backward::DistributedGradients;
pub use error::{Error, Result};
pub use exchange::{Exchange, Expected, Fault, Message, Round};
pub use forward::Forward;
pub use plan::Plan;
pub use session::HEADER_BYTES;
pub use threads::Threads;
pub use traffic::{Pass, Sent, Traffic};
