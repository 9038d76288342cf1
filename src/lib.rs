//! Long-sequence attention kernels in WGSL, run through [`wgpu`](https://docs.rs/wgpu) on every vendor's GPU, with an
//! f64 reference and a proven error bound.
//!
//! # What is computed
//!
//! Every attention here is one computation,
//!
//! ```text
//! lse_i = ln sum over j in S_i of exp(score(i, j))
//! o_i   =    sum over j in S_i of exp(score(i, j) - lse_i) v_j
//! ```
//!
//! and differs only in the set S of attended pairs and in the score. So there is one blocked kernel
//! (`shaders/attention.wgsl`), and around it:
//!
//! * a [`Pattern`] says which pairs are in S: a predicate, and a closed form of the keys that a block of queries touches;
//! * a [`BlockMask`] lists, for each block of queries, the runs of key blocks to visit: *full*, or *partial* with bits;
//! * [`Parts`] are masks with disjoint sets, in an order of queries and keys of their own, whose results merge exactly.
//!
//! Gradients by q, k, v and the tensors of the score ([`AttentionPlan::backward`]) walk the same mask, and its transpose
//! (`shaders/backward.wgsl`). Beside it:
//!
//! | start at | what it is |
//! |---|---|
//! | [`DecodeShape`], [`KvCache`] | a step of decoding with a key cache, whose lengths and pages lie on the device |
//! | [`PackedShape`] | attention of packed sequences, without a cache |
//! | [`LshOptions`] | LSH attention (Reformer): the same kernel over places that the device hashes and sorts |
//! | [`LinearOptions`] | attention without a softmax over keys (Performer), in time linear in the length |
//! | [`LinformerOptions`] | keys and values projected along the sequence, then attended |
//! | [`MatmulShape`], [`FeedForwardShape`], [`NormShape`] and the like | the layers around attention, each with its gradients |
//! | [`IntegerFormat`], [`IntegerMatmulShape`] | weights of 8 and 4 bits; exact products of quantised activations |
//! | [`Reversible`] | reversible layers (RevNet, Reformer): gradients without stored activations |
//! | [`RecurrentShape`] | LSTM, GRU and simple recurrent networks, to compare with |
//!
//! # For users of wgpu: your device, your buffers, your encoder
//!
//! [`Kernels::attention`] plans (compiles once), [`AttentionPlan::bind`] checks the buffers, [`Call::encode`]
//! records. Nothing is submitted, polled or written behind your back. See [`Kernels`] for the ten lines.
//!
//! # For plain Rust: slices in, `Vec` out
//!
//! ```no_run
//! use wgpu_attention::{AttentionShape, Causal, Gpu, reference};
//!
//! let shape = AttentionShape::new(1, 8, 512, 64);                  // batch, heads, length, head size
//! let [q, k, v] = [1, 2, 3].map(|seed| vec![seed as f32 * 0.1; shape.len_q()]);
//! let gpu = Gpu::new()?;                                           // picks an adapter, or says that there is none
//! let out: Vec<f32> = gpu.attention(&shape, &q, &k, &v, &Causal)?;
//!
//! // And is it right? Every element against f64, within a bound computed from the inputs.
//! let inputs = wgpu_attention::Inputs::new(&q, &k, &v);
//! let got = reference::Got::new(&out);
//! let report = reference::verify(&shape, &inputs, &Causal, got, Default::default())?;
//! assert!(report.pass, "{report}");
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # Notation
//!
//! | meaning | symbol | name |
//! |---|---|---|
//! | batch, query heads, key/value heads | B, H, Hkv | `batch`, `heads`, `kv_heads` |
//! | query length, key length | Lq, Lk | `q_len`, `kv_len` |
//! | head size, value size | d, dv | `head_dim`, `value_dim` |
//! | query, key | i, j | `i`, `j` |
//! | block sizes | Br, Bc | `block_q`, `block_k` |
//! | attended pairs | S | [`Pattern::keep`]; true = attend |
//! | running maximum, sum, output | m, l, o | `m`, `l`, `o` |
//! | log-sum-exp | lse = m + ln l | `lse` |
//! | gradient by x, or of x: that of the loss with respect to x | dx | `dq`, `dk`, `dv`, `dout` |
//!
//! Sizes in bytes end in `_bytes`; all else counts elements. Masks are exact; a row without a key gives exactly 0 and
//! lse = `f32::MIN`. What the mask leaves out never matters, be it NaN; a row that attends a NaN or an infinity shows it, in all of
//! its output and in its lse.
//!
//! # Where things are
//!
//! | folder | what | may use |
//! |---|---|---|
//! | [`pattern`] | which pairs are attended, one file per pattern | |
//! | [`mask`] | patterns as blocks, bit tiles, orders | `pattern` |
//! | [`ranks`] | a sequence that several ranks hold: who holds what, and who needs it | `pattern`, `mask` |
//! | `score` | the score and its terms, one file per term | |
//! | [`mod@reference`] | f64 attention, the error bound, verification | `pattern`, `score` |
//! | [`wgsl`] | the shader text of each variant | |
//! | [`Schedule`] | how a call is cut into workgroups | `mask`, `wgsl` |
//! | `gpu` | plan, bind, encode | `mask`, `wgsl` |
//! | `shaders/` | the kernels | |
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `gpu` | yes | wgpu and everything that needs a device, without a backend |
//! | `vulkan`, `metal`, `dx12`, `gles` | yes | `gpu`, and the wgpu backend of that name, on the systems that have it |
//! | `webgpu` | | `gpu`, and wgpu's backend for browsers |
//! | `custom` | yes | `gpu`, and plans of scores with the caller's own WGSL ([`Custom`]), which naga checks |
//! | `serde` | | patterns from JSON: `AnyPattern` |
//! | `ndarray` | | `ndarray`'s views as tensors: `Gpu::attention_arrays` |
//!
//! A program that chooses wgpu's backends itself takes this crate with `default-features = false, features = ["gpu"]`, beside
//! a `wgpu` of the same version with the backends it wants: cargo builds one wgpu for both. Without `gpu`, patterns,
//! masks, the reference and the WGSL text remain.

// A browser's device belongs to one thread; the `Arc`s around it are for all the others.
#![cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync))]

mod attention;
mod construct;
mod counter;
mod decode;
mod element;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod heads;
mod inputs;
mod integers;
mod layout;
mod linear;
mod linformer;
mod lsh;
pub mod mask;
mod names;
#[cfg(feature = "gpu")]
mod open;
mod path;
pub mod pattern;
mod position;
pub mod ranks;
mod recurrent;
pub mod reference;
mod schedule;
mod score;
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
mod self_test;
mod shape;
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
pub mod tune;
mod uniform;
pub mod wgsl;

pub use attention::{Attention, Layouts, Storage};
pub use counter::Counter;
pub use decode::{CacheShape, CacheStorage, DecodeShape, PackedShape, Paging};
pub use element::{Element, ElementType};
pub use error::{Error, Result};
#[cfg(all(feature = "ndarray", not(target_arch = "wasm32")))]
pub use gpu::ArrayGradients;
#[cfg(feature = "gpu")]
pub use gpu::{
    ActivationBackwardPlan, ActivationBuffers, ActivationGradBuffers, ActivationGradientsOutput,
    ActivationPlan, AddPlan, AppendBuffers, AttendBuffers, AttentionBranch, AttentionBuffers,
    AttentionGradBuffers, AttentionGradients, AttentionOutput, AttentionPlan, AttentionWeights,
    AxialBackwardPlan, AxialPlan, BackwardExplanation, BackwardPlan, Branch, BranchPlan, BranchPort,
    BranchTensors, Call, CallBranch, ClipPlan, CrossEntropyBuffers, CrossEntropyOutput, CrossEntropyPlan,
    DecodePlan, DecodeScratch, DequantizePlan, DistillationBuffers, DistillationPlan, EmbedBackwardPlan,
    EmbedPlan, Explanation, FeedForwardBackwardPlan, FeedForwardBranch, FeedForwardBuffers,
    FeedForwardGradBuffers, FeedForwardGradients, FeedForwardPlan, FeedForwardSlices, Gpu, Gradients,
    IntegerBuffers, IntegerMatmulBuffers, IntegerMatmulPlan, Kernels, KvCache, LayerBranch,
    LinearBackwardPlan, LinearBuffers, LinearGradBuffers, LinearGradients, LinearPlan, LinformerBackwardPlan,
    LinformerBuffers, LinformerGradBuffers, LinformerGradients, LinformerPlan, LinformerScratch,
    LshBackwardExplanation, LshBackwardPlan, LshBuffers, LshExplanation, LshGradBuffers, LshGradients,
    LshOutput, LshPlan, MatmulBackwardPlan, MatmulBuffers, MatmulGradBuffers, MatmulGradients, MatmulPlan,
    MatmulSlices, NormBackwardPlan, NormBuffers, NormGradBuffers, NormGradOutput, NormPlan, OptimizerBuffers,
    OptimizerOutput, OptimizerPlan, OptimizerSlices, Options, Outputs, PackedBuffers, PackedPlan, Parameter,
    ParameterLayout, PathChoice, QuantizePlan, RecurrentBuffers, RecurrentOutput, RecurrentPlan,
    RecurrentScratch, RecurrentWeightBuffers, Reversible, ReversibleBuffers, RotaryBuffers, RotaryPlan,
    RotaryTablesBuffers, RotaryTablesPlan, RowSummary, Scratch, SoftmaxBackwardPlan, SoftmaxPlan,
    SortBuffers, SortOutput, SortPlan, SortShape, Stage, TensorExplanation, WeightsBuffers, WeightsOptions,
    WeightsPlan, cooperative_features, recommended_features, recommended_limits,
};
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
pub use gpu::{SelfTest, TestedPlan};
/// The `half` that [`Element`] is implemented for, so that versions agree: `half::f16` and `half::bf16`.
pub use half;
pub use heads::Heads;
pub use inputs::Inputs;
pub use integers::{
    IntegerFormat, IntegerMatmulShape, IntegerOutput, IntegerType, QuantizationError, QuantizeRule,
    QuantizeShape, Quantized, ScaleGroups,
};
pub use layout::{BiasStrides, Layout, Strides};
pub use linear::{FeatureMap, LinearInputs, LinearOptions, LinearState, Projection, Stabiliser};
pub use linformer::{LinformerInputs, LinformerOptions};
pub use lsh::{LshInputs, LshOptions, Projections};
pub use mask::{BlockGrid, BlockMask, PackedMask, Part, Parts, Row, Run, RunKind};
pub use path::KernelPath;
#[cfg(feature = "serde")]
pub use pattern::AnyPattern;
pub use pattern::{
    And, BigBird, BlockLayout, Blocks, Causal, Dilated, Document, Extent, First, Fixed, FixedPart, Full,
    Global, KeyLengths, Longformer, Mask, Not, Or, PairPredicate, Pattern, Permutation, Predicate, Prefix,
    Random, Site, Span, Strided, StridedPart, Varies, Window,
};
pub use position::Position;
pub use recurrent::{RecurrentCell, RecurrentInputs, RecurrentShape, RecurrentWeights};
pub use schedule::Schedule;
pub use score::{
    Alibi, Bias, Buckets, Custom, CustomPair, Dropout, Relative, Score, Segments, Sinks, Slopes, Softcap,
    Temperature, Term, TermTensor,
};
pub use shape::{
    AOrder, Activation, ActivationShape, AddShape, AttentionShape, AxialShape, ClipShape, Combine,
    CrossEntropyShape, DistillationShape, EmbedGradients, EmbedShape, FeedForwardShape, LossGradient,
    MatmulShape, NormKind, NormShape, OptimizerRule, OptimizerShape, OptimizerStep, RotaryAngles,
    RotaryPairs, RotaryScaling, RotaryShape, RowGradients, RowStrides, SinusoidalFrequencies,
    SinusoidalLayout, SoftmaxShape, WeightOrder, Yarn, rotary_tables, sinusoidal_positions,
    sinusoidal_positions_with,
};
/// The wgpu that the kernels are built on, so that versions agree.
#[cfg(feature = "gpu")]
pub use wgpu;

/// The README's examples compile.
#[cfg(all(doctest, feature = "gpu"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those of the page of gradients.
#[cfg(all(doctest, feature = "gpu"))]
#[doc = include_str!("../docs/GRADIENTS.md")]
struct GradientsPage;

/// Those of the page of heads.
#[cfg(all(doctest, feature = "gpu"))]
#[doc = include_str!("../docs/heads.md")]
struct HeadsPage;

/// And those of the page of integers.
#[cfg(all(doctest, feature = "gpu"))]
#[doc = include_str!("../docs/integers.md")]
struct IntegersPage;

/// Those of the page of matrix units.
#[cfg(all(doctest, feature = "gpu"))]
#[doc = include_str!("../docs/matrix_units.md")]
struct MatrixUnits;

/// And those of the page of scores.
#[cfg(all(doctest, feature = "gpu"))]
#[doc = include_str!("../docs/SCORES.md")]
struct Scores;
