//! The suites: which cases, and how long each may take.

mod crossover;
mod made;
mod predictions;
#[cfg(test)]
mod tests;

use crate::cases::{NamedPattern, PATTERNS, QUADRATIC, Spec, Work};
use crate::record::{Direction, Rules};
use made::{
    attention, backward, cached, decode, dense, directed, integers, known, linear, linformer, lsh, named, of,
    own_text, recurrent, scored, small,
};
use wgpu_attention::{
    Activation, AttentionShape, CacheStorage, ElementType, FeatureMap, FeedForwardShape, IntegerType,
    LinearOptions, LinformerOptions, MatmulShape, RecurrentCell, ScaleGroups, Storage,
};

use ElementType::{Bf16, F16, F32};

/// Which cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Suite {
    /// Two to three minutes per software adapter: one head, short sequences, every kernel, some scores
    Quick,
    /// Every pattern from 512 to 65536, published workloads by name, decoding, published scores
    Standard,
    /// Also every element type, head sizes 64 and 128, and a million keys
    Full,
    /// One width, 128 to 65536 positions: which is fastest at which length; the Sparse Transformer's own table. About four minutes
    Crossover,
    /// The kernels whose speed is predicted for GPUs (`report --predictions`). About a minute
    Predictions,
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
            Self::Crossover => "crossover",
            Self::Predictions => "predictions",
        })
    }
}

impl Suite {
    /// When a measurement ends, and what is flagged.
    pub fn rules(self) -> Rules {
        let rules = Rules {
            min_samples: 10,
            min_s: 0.5,
            max_s: 15.0,
            deviation: 0.005,
            clocks: 0.05,
            drift: 0.05,
            cold_bytes: 256 << 20,
            most_call_s: None,
            most_run_s: None,
        };
        match self {
            Self::Quick => Rules { max_s: 0.8, cold_bytes: 32 << 20, ..rules },
            Self::Standard | Self::Full => rules,
            Self::Crossover => crossover::rules(rules, crossover::SECONDS),
            Self::Predictions => predictions::rules(rules),
        }
    }

    /// The rules under which the suite takes about so many seconds on an adapter; none of a suite that takes as long as it takes.
    pub fn rules_within(self, seconds: f64) -> Option<Rules> {
        (self == Self::Crossover).then(|| crossover::rules(self.rules(), seconds))
    }

    /// The cases that a filter takes; all of them without one.
    pub fn filtered(self, filter: Option<&str>) -> Vec<Spec> {
        let mut specs = self.cases();
        specs.retain(|spec| filter.is_none_or(|filter| spec.matches(filter)));
        specs
    }

    /// The cases, each once.
    pub fn cases(self) -> Vec<Spec> {
        let mut specs = match self {
            Self::Quick => quick(),
            Self::Standard => standard(),
            Self::Full => [standard(), full()].concat(),
            Self::Crossover => crossover::cases(),
            Self::Predictions => predictions::cases(),
        };
        let mut seen = std::collections::HashSet::new();
        specs.retain(|spec| seen.insert(spec.name()));
        specs
    }
}

/// Of a key cache.
const STORAGES: [CacheStorage; 3] =
    [CacheStorage::Elements(F32), CacheStorage::Elements(F16), CacheStorage::Int8];

fn quick() -> Vec<Spec> {
    let mut specs = vec![];
    for (name, of_len) in PATTERNS {
        let lens: &[usize] = match name {
            "full" | "causal" | "window" | "bigbird" => &[512, 1024, 2048],
            "prefix" | "document" => &[1024],
            _ => &[2048],
        };
        for &len in lens {
            let pattern = NamedPattern { name, text: of_len(len) };
            specs.push(attention(AttentionShape::new(1, 1, len, 64), pattern));
        }
    }
    specs.push(dense("full", AttentionShape::new(1, 1, 1024, 64).storage(Storage::all(F16))));
    specs.push(dense("full", AttentionShape::new(1, 1, 512, 128)));
    specs.push(known("BERT-base", "full", AttentionShape::new(1, 12, 512, 64)));
    for name in ["full", "causal", "window", "bigbird"] {
        specs.push(backward(name, AttentionShape::new(1, 1, 2048, 64)));
    }
    specs.extend(quick_scores());
    specs.push(decode(8, 1, 2048, F32));
    specs.extend(STORAGES.map(|storage| cached(1, 1024, storage)));
    specs.push(lsh(AttentionShape::new(1, 1, 2048, 64), None));
    specs.push(lsh(scored("alibi", AttentionShape::new(1, 1, 2048, 64)), None));
    specs.extend(gradients(AttentionShape::new(1, 1, 1024, 64)));
    specs.push(of(Work::Matmul(MatmulShape::new(512, 512, 512))));
    specs.push(integers(IntegerType::I8, ScaleGroups::Rows, [1, 2048, 2048]));
    specs.push(of(Work::FeedForward(FeedForwardShape::new(256, 256, 1024, Activation::GeluTanh))));
    specs.push(recurrent(RecurrentCell::Lstm, [1, 128, 256], F32));
    specs.extend(small(1024, 1024, F32));
    specs
}

/// Of what is no pattern: its gradients, and those of LSH attention behind a forward call, too.
fn gradients(shape: AttentionShape) -> Vec<Spec> {
    let performer = LinearOptions::new(FeatureMap::favor(64)).causal(true);
    let rows = LinformerOptions::new(shape.kv_len, 256);
    vec![
        directed(lsh(shape, None), Direction::Backward),
        directed(lsh(shape, None), Direction::Both),
        directed(linear(shape, performer), Direction::Backward),
        directed(linformer(shape, rows), Direction::Backward),
    ]
}

/// What is added, what is one more product, what is one more logit, what acts on weights, and a text of one's own.
fn quick_scores() -> Vec<Spec> {
    let shape = |len| AttentionShape::new(1, 1, len, 64);
    let mut specs = vec![];
    for (pattern, score) in
        [("full", "t5"), ("causal", "alibi"), ("causal", "txl"), ("causal", "sinks"), ("causal", "dropout")]
    {
        specs.push(dense(pattern, scored(score, shape(1024))));
    }
    specs.extend(own_text("causal", shape(1024)));
    specs.push(backward("causal", scored("alibi", shape(1024))));
    // The reference takes its time for the gradients of products with rows.
    specs.push(backward("causal", scored("txl", shape(512))));
    specs
}

fn standard() -> Vec<Spec> {
    let mut specs = by_length(8, 64, F16, &[512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536], 16_384);
    for len in [1024, 4096] {
        specs.push(dense("full", AttentionShape::new(1, 8, len, 64)));
        specs.push(dense("causal", AttentionShape::new(1, 8, len, 64)));
        specs.push(dense("full", AttentionShape::new(1, 8, len, 128).storage(Storage::all(F16))));
        specs.push(dense("causal", AttentionShape::new(1, 8, len, 128).storage(Storage::all(F16))));
    }
    // The reference computes every element of a gradient: longer ones take it minutes.
    for name in ["full", "causal", "window", "strided", "bigbird"] {
        for head_dim in [64, 128] {
            specs.push(dense(name, AttentionShape::new(1, 1, 4096, head_dim)));
            specs.push(backward(name, AttentionShape::new(1, 1, 4096, head_dim)));
        }
    }
    specs.extend(published());
    for queries in [1, 4, 16] {
        for kv_len in [4096, 32_768] {
            specs.push(decode(32, queries, kv_len, F16));
        }
    }
    for (batch, len) in [(1, 1024), (8, 1024), (1, 8192), (8, 8192)] {
        specs.extend(STORAGES.map(|storage| cached(batch, len, storage)));
    }
    for len in [4096, 16_384, 65_536] {
        specs.push(lsh(AttentionShape::new(1, 8, len, 64).storage(Storage::all(F16)), None));
    }
    specs.extend(gradients(AttentionShape::new(1, 1, 4096, 64)));
    for score in ["alibi", "t5", "sinks"] {
        let shape = AttentionShape::new(1, 8, 4096, 64);
        specs.push(lsh(scored(score, shape).storage(Storage::all(F16)), None));
    }
    for size in [1024, 2048, 4096] {
        specs.push(of(Work::Matmul(MatmulShape::new(size, size, size))));
        specs.push(of(Work::Matmul(MatmulShape::new(size, size, size).elements(F16))));
    }
    // A token of decoding.
    specs.push(integers(IntegerType::I8, ScaleGroups::Rows, [1, 4096, 4096]));
    specs.push(integers(IntegerType::I4, ScaleGroups::Groups(32), [1, 4096, 4096]));
    specs.push(of(Work::FeedForward(
        FeedForwardShape::new(2048, 768, 3072, Activation::GeluErf).elements(F16),
    )));
    let llama = FeedForwardShape::new(2048, 2048, 5632, Activation::Silu).gated(true).elements(F16);
    specs.push(of(Work::FeedForward(llama)));
    for cell in [RecurrentCell::Lstm, RecurrentCell::Gru] {
        specs.push(recurrent(cell, [16, 128, 512], F32));
    }
    specs.push(recurrent(RecurrentCell::Lstm, [1, 512, 512], F32));
    specs.push(recurrent(RecurrentCell::Lstm, [16, 128, 1024], F16));
    specs.extend(small(8192, 4096, F32));
    specs.extend(small(8192, 4096, F16));
    specs.extend(standard_scores());
    specs
}

/// Those that models have most by length, all others once; gradients.
fn standard_scores() -> Vec<Spec> {
    let shape = |len| AttentionShape::new(1, 8, len, 64);
    let halves = |score: &str, len: usize| scored(score, shape(len)).storage(Storage::all(F16));
    let mut specs = vec![];
    for (pattern, scores) in [
        ("full", &["alibi", "t5", "shaw", "sinks"][..]),
        ("causal", &["alibi", "t5", "shaw", "txl", "sinks"]),
        ("window", &["alibi", "t5", "shaw", "txl", "sinks"]),
    ] {
        for score in scores {
            specs.extend([1024, 2048, 4096, 8192].map(|len| dense(pattern, halves(score, len))));
        }
    }
    for (pattern, score) in [
        ("full", "xlnet"),
        ("causal", "music"),
        ("causal", "softcap"),
        ("full", "temperature"),
        ("causal", "dropout"),
        ("full", "bias"),
    ] {
        specs.push(dense(pattern, halves(score, 4096)));
    }
    specs.extend(own_text("causal", shape(4096).storage(Storage::all(F16))));
    for (pattern, score, len) in [
        ("causal", "alibi", 2048),
        ("full", "t5", 2048),
        ("causal", "sinks", 2048),
        ("causal", "dropout", 2048),
        ("causal", "txl", 1024),
        ("full", "xlnet", 1024),
    ] {
        specs.push(backward(pattern, scored(score, AttentionShape::new(1, 1, len, 64))));
    }
    specs
}

/// What `standard` leaves out.
fn full() -> Vec<Spec> {
    let mut specs = vec![];
    let lens = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
    for element in [F32, F16, Bf16] {
        for head_dim in [64, 128] {
            specs.extend(by_length(8, head_dim, element, &lens, 65_536));
        }
        for queries in [1, 2, 4, 8, 16] {
            for kv_len in [4096, 16_384, 65_536] {
                specs.push(decode(32, queries, kv_len, element));
            }
        }
        specs.extend(small(16_384, 4096, element));
    }
    for (name, of_len) in PATTERNS.into_iter().filter(|(name, _)| !QUADRATIC.contains(name)) {
        let len = 1 << 20;
        let shape = AttentionShape::new(1, 1, len, 64).storage(Storage::all(F16));
        specs.push(attention(shape, NamedPattern { name, text: of_len(len) }));
    }
    specs.push(lsh(AttentionShape::new(1, 1, 1 << 20, 64).storage(Storage::all(F16)), None));
    let llama = FeedForwardShape::new(2048, 4096, 11_008, Activation::Silu).gated(true).elements(F16);
    specs.push(of(Work::FeedForward(llama)));
    specs
}

/// The workloads that others publish figures of.
fn published() -> Vec<Spec> {
    let shape = AttentionShape::new;
    let halves = |shape: AttentionShape| shape.storage(Storage::all(F16));
    let mut specs = vec![
        known("BERT-base", "full", halves(shape(1, 12, 512, 64))),
        known("GPT-2", "causal", halves(shape(1, 12, 1024, 64))),
    ];
    specs.push(known("Llama grouped heads", "causal", halves(shape(4, 32, 2048, 128).kv_heads(8))));
    // Child 2019, section 7.2: stride 128, summary 32, heads merged.
    let fixed = NamedPattern { name: "fixed", text: "fixed:stride=128,summary=32".into() };
    specs.push(named("Sparse Transformer Enwik8", attention(halves(shape(1, 8, 12_288, 64)), fixed)));
    specs.push(known("BigBird-base", "bigbird", halves(shape(1, 12, 4096, 64))));
    specs.push(lsh(halves(shape(1, 8, 65_536, 128)), Some("Reformer")));
    specs.push(known("llama.cpp D72", "full", halves(shape(1, 16, 5776, 72))));
    specs.push(known("llama.cpp D64", "full", halves(shape(1, 64, 7680, 64).kv_heads(8).q_len(1))));
    specs
}

/// Every pattern at every length, those with a quadratic cost up to `dense_len`.
fn by_length(
    heads: usize,
    head_dim: usize,
    element: ElementType,
    lens: &[usize],
    dense_len: usize,
) -> Vec<Spec> {
    let mut specs = vec![];
    for (name, of_len) in PATTERNS {
        for &len in lens.iter().filter(|&&len| len <= dense_len || !QUADRATIC.contains(&name)) {
            let shape = AttentionShape::new(1, heads, len, head_dim).storage(Storage::all(element));
            specs.push(attention(shape, NamedPattern { name, text: of_len(len) }));
        }
    }
    specs
}
