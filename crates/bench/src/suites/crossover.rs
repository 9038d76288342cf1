//! Which computation is fastest at which length, at one width of the model: 512, of 8 heads, f32, batch 1. And the Sparse Transformer's own
//! table: dense, fixed and strided attention over 12,288 positions, alone and in a layer.

use super::made::{attention, linear, linformer, lsh, named, of, recurrent};
use crate::cases::{BlockShape, NamedPattern, PATTERNS, Spec, Work};
use crate::record::Rules;
use wgpu_attention::{
    AttentionShape, ElementType, FeatureMap, LinearOptions, LinformerOptions, RecurrentCell,
};

/// How long the suite takes unless it is told otherwise.
pub(super) const SECONDS: f64 = 240.0;
/// Calls of the longest kind that the time is for: each is computed twice, and the reference takes about as long.
const LONGEST_CALLS: f64 = 60.0;

const HEADS: usize = 8;
const HEAD_DIM: usize = 64;
/// Rows that Linformer attends (Wang 2020, section 5), and features of FAVOR+ (Choromanski 2020, section 4).
const PROJECTED: usize = 256;
const FEATURES: usize = 256;
/// Of the paper.
const PAPER: &str = "Sparse Transformer";
const PAPER_LEN: usize = 12_288;

/// Few samples of each, and no call that takes too long.
pub(super) fn rules(rules: Rules, seconds: f64) -> Rules {
    let most = seconds / LONGEST_CALLS;
    Rules {
        min_samples: 5,
        min_s: 0.1,
        max_s: seconds / 400.0,
        deviation: 0.02,
        cold_bytes: 0,
        most_call_s: Some(most),
        most_run_s: Some(seconds),
        ..rules
    }
}

/// By length, so that what was drawn for one subject serves the next, and the longest are left out where time is short; the paper's before those longer
/// than its.
pub(super) fn cases() -> Vec<Spec> {
    let lens = |powers: std::ops::RangeInclusive<u32>| powers.flat_map(|power| at(1 << power));
    lens(7..=13).chain(paper()).chain(lens(14..=16)).collect()
}

/// The paper's table.
fn paper() -> Vec<Spec> {
    // Child 2019, section 7.2: stride 128, summary 32.
    let patterns = [
        ("causal", "causal".to_owned()),
        ("fixed", "fixed:stride=128,summary=32".into()),
        ("strided", "strided:stride=128".into()),
    ];
    let patterns = patterns.map(|(name, text)| NamedPattern { name, text });
    let shape = AttentionShape::new(1, HEADS, PAPER_LEN, HEAD_DIM);
    let mut specs: Vec<Spec> = patterns.clone().map(|pattern| named(PAPER, attention(shape, pattern))).into();
    let (len, model_dim) = (PAPER_LEN, HEADS * HEAD_DIM);
    let block = |pattern| BlockShape { len, model_dim, heads: HEADS, hidden_dim: 4 * model_dim, pattern };
    specs.extend(patterns.map(|pattern| named(PAPER, of(Work::Block(block(pattern))))));
    specs
}

/// Every subject at a length.
fn at(len: usize) -> Vec<Spec> {
    let shape = AttentionShape::new(1, HEADS, len, HEAD_DIM);
    let of_len = |name: &'static str| {
        let (_, of_len) = PATTERNS.into_iter().find(|(known, _)| *known == name).expect("a pattern");
        NamedPattern { name, text: of_len(len) }
    };
    // Eight blocks at least: of fewer, every one is attended.
    let block = 64.min(len / 8);
    let bigbird = format!("bigbird:block={block},window=3,global=2,random=3,seed=7");
    let patterns = ["full", "causal", "window", "strided", "fixed"].map(of_len);
    let mut specs: Vec<Spec> = patterns.map(|pattern| attention(shape, pattern)).into();
    specs.push(attention(shape, NamedPattern { name: "bigbird", text: bigbird }));
    specs.push(lsh(shape, None));
    let options = LinformerOptions::new(len, PROJECTED.min(len));
    specs.push(linformer(shape, options));
    for causal in [false, true] {
        let options = LinearOptions::new(FeatureMap::favor(FEATURES)).causal(causal);
        specs.push(linear(shape, options));
    }
    specs.push(recurrent(RecurrentCell::Lstm, [1, len, HEADS * HEAD_DIM], ElementType::F32));
    specs
}
