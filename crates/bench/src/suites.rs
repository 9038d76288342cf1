//! The suites: which cases, and how long each may take.

use crate::cases::{NamedPattern, PATTERNS, QUADRATIC, Spec, Work, pattern};
use crate::record::Rules;
use crate::scores::score;
use wgpu_attention::{
    Activation, AddShape, Attention, AttentionShape, ElementType, EmbedShape, FeedForwardShape, LshOptions,
    MatmulShape, NormKind, NormShape, RotaryShape, SoftmaxShape, Storage,
};

use ElementType::{Bf16, F16, F32};

/// Which cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Suite {
    /// Under two minutes on a software adapter: one head, short sequences, every kernel, some scores
    Quick,
    /// Every pattern from 512 to 65536, published workloads by name, decoding, published scores
    Standard,
    /// Also every element type, head sizes 64 and 128, and a million keys
    Full,
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
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
        };
        match self {
            Self::Quick => Rules { max_s: 1.2, cold_bytes: 32 << 20, ..rules },
            Self::Standard | Self::Full => rules,
        }
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
        };
        let mut seen = std::collections::HashSet::new();
        specs.retain(|spec| seen.insert(spec.name()));
        specs
    }
}

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
    specs.push(lsh(AttentionShape::new(1, 1, 2048, 64), None));
    specs.push(of(Work::Matmul(MatmulShape::new(512, 512, 512))));
    specs.push(of(Work::FeedForward(FeedForwardShape::new(256, 256, 1024, Activation::GeluTanh))));
    specs.extend(small(1024, 1024, F32));
    specs
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
    for len in [4096, 16_384, 65_536] {
        specs.push(lsh(AttentionShape::new(1, 8, len, 64).storage(Storage::all(F16)), None));
    }
    for size in [1024, 2048, 4096] {
        specs.push(of(Work::Matmul(MatmulShape::new(size, size, size))));
        specs.push(of(Work::Matmul(MatmulShape::new(size, size, size).elements(F16))));
    }
    specs.push(of(Work::FeedForward(
        FeedForwardShape::new(2048, 768, 3072, Activation::GeluErf).elements(F16),
    )));
    let llama = FeedForwardShape::new(2048, 2048, 5632, Activation::Silu).gated(true).elements(F16);
    specs.push(of(Work::FeedForward(llama)));
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

fn of(work: Work) -> Spec {
    Spec { known_as: None, work }
}

fn named(known_as: &'static str, spec: Spec) -> Spec {
    Spec { known_as: Some(known_as), ..spec }
}

fn attention(attention: impl Into<Attention>, pattern: NamedPattern) -> Spec {
    of(Work::Attention { attention: attention.into(), pattern })
}

/// The gradients of such a call.
fn backward(name: &str, call: impl Into<Attention>) -> Spec {
    let call = call.into();
    let pattern = pattern(name, call.shape.kv_len).unwrap_or_else(|| panic!("there is no pattern {name}"));
    of(Work::Backward { attention: call, pattern })
}

/// One of the patterns that are there; a test makes every suite.
fn dense(name: &str, call: impl Into<Attention>) -> Spec {
    let call = call.into();
    let pattern = pattern(name, call.shape.kv_len).unwrap_or_else(|| panic!("there is no pattern {name}"));
    attention(call, pattern)
}

/// A call with one of the scores that are there.
fn scored(name: &str, shape: AttentionShape) -> Attention {
    shape.score(score(name, &shape).unwrap_or_else(|| panic!("there is no score {name}")))
}

/// A call whose score is a text of one's own, in programs that have such texts.
#[cfg(feature = "custom")]
fn own_text(pattern: &str, call: impl Into<Attention>) -> Option<Spec> {
    let call = call.into();
    let score = score(crate::scores::CUSTOM, &call.shape)?;
    Some(dense(pattern, call.score(score)))
}

#[cfg(not(feature = "custom"))]
fn own_text(_: &str, _: impl Into<Attention>) -> Option<Spec> {
    None
}

fn known(known_as: &'static str, pattern: &str, call: impl Into<Attention>) -> Spec {
    named(known_as, dense(pattern, call))
}

/// A few queries against a cache of keys, four query heads a key head.
fn decode(heads: usize, queries: usize, kv_len: usize, element: ElementType) -> Spec {
    let shape = AttentionShape::new(1, heads, queries, 128).kv_heads(heads / 4).kv_len(kv_len);
    dense("causal", shape.storage(Storage::all(element)))
}

/// Four rounds in chunks of 64, about two places a bucket and chunk.
fn lsh(call: impl Into<Attention>, known_as: Option<&'static str>) -> Spec {
    let attention = call.into();
    let buckets = (attention.shape.kv_len / 32).min(LshOptions::MAX_BUCKETS);
    let low = 1 << (buckets.ilog2() / 2);
    let options = LshOptions::new(4, buckets, 64).buckets(vec![low, buckets / low]).causal(true);
    Spec { known_as, work: Work::Lsh { attention, options } }
}

/// The kernels whose time is that of memory.
fn small(rows: usize, width: usize, element: ElementType) -> Vec<Spec> {
    let norm = |kind| {
        let shape = NormShape::new(kind, rows, width, 1e-5).elements(element);
        Work::Norm(if kind == NormKind::Layer { shape.bias(true) } else { shape })
    };
    let works = [
        norm(NormKind::Layer),
        norm(NormKind::Rms),
        Work::Softmax(SoftmaxShape::new(rows, width).input(element).output(element)),
        Work::Rotary(RotaryShape::new(1, width / 64, rows, 64).input(element).output(element)),
        Work::Embed(EmbedShape::new(rows, 8192, width).table(element).output(element)),
        Work::Add(AddShape::new(rows, width).input(element).other(element).output(element)),
    ];
    works.map(of).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Direction;
    use crate::scores::SCORES;

    #[test]
    fn every_case_of_every_suite_is_valid_and_named_once() {
        for suite in [Suite::Quick, Suite::Standard, Suite::Full] {
            let specs = suite.cases();
            let names: std::collections::BTreeSet<_> = specs.iter().map(Spec::name).collect();
            assert_eq!(names.len(), specs.len());
            for spec in &specs {
                let checked = match &spec.work {
                    Work::Attention { attention, pattern } | Work::Backward { attention, pattern } => {
                        attention.check().and(pattern.parse().map(drop))
                    }
                    Work::Lsh { attention, options } => options.check(attention),
                    Work::Matmul(it) => it.check(),
                    Work::FeedForward(it) => it.check(),
                    Work::Norm(it) => it.check(),
                    Work::Softmax(it) => it.check(),
                    Work::Rotary(it) => it.check(),
                    Work::Embed(it) => it.check(),
                    Work::Add(it) => it.check(),
                };
                checked.unwrap_or_else(|error| panic!("{}: {error}", spec.name()));
                let (kernel, name) = (spec.kernel(), spec.kernel().name());
                assert_eq!(serde_json::to_value(kernel).unwrap(), name, "as the JSON has it");
            }
        }
    }

    #[test]
    fn every_score_is_in_the_standard_suite_and_some_are_in_the_quick_one() {
        let names = |suite: Suite, direction| -> Vec<String> {
            let specs = suite.cases().into_iter().filter(|spec| spec.direction() == direction);
            specs.filter_map(|spec| spec.score_name()).collect()
        };
        let standard = names(Suite::Standard, Direction::Forward);
        for (name, _) in SCORES {
            assert!(standard.iter().any(|it| it == name), "{name}");
        }
        let lens = |part: &str| -> Vec<usize> {
            let specs = Suite::Standard.cases().into_iter().filter(|spec| spec.name().contains(part));
            specs.map(|spec| spec.shape().length()).collect()
        };
        for case in [
            "attention/full+shaw ",
            "attention/causal+txl ",
            "attention/window+t5 ",
            "attention/window+sinks ",
        ] {
            assert_eq!(lens(case), [1024, 2048, 4096, 8192], "{case}");
        }
        let own = if cfg!(feature = "custom") { 1 } else { 0 };
        assert_eq!(standard.iter().filter(|name| *name == "custom").count(), own);
        assert_eq!(names(Suite::Quick, Direction::Forward).len(), 5 + own);
        assert_eq!(names(Suite::Quick, Direction::Backward), ["alibi", "txl"]);
    }

    #[test]
    fn the_published_workloads_are_in_the_standard_suite() {
        let known: Vec<_> = Suite::Standard.cases().iter().filter_map(|spec| spec.known_as).collect();
        let need = [
            "BERT-base",
            "GPT-2",
            "Llama grouped heads",
            "Sparse Transformer Enwik8",
            "BigBird-base",
            "Reformer",
            "llama.cpp D72",
            "llama.cpp D64",
        ];
        assert_eq!(known, need);
    }
}
