//! Every shader that the crate can generate passes every gate.

use wgpu_attention::wgsl::{AttentionVariant, Shader, Stats, Tile, TileLimits, variants};
use wgpu_attention::{ElementType, Score};
use wgpu_attention_gates::{Language, Parsed, lint, translate};

/// What `judge` has against the crate's shaders, each with its shader's name.
fn faults(judge: impl Fn(&Parsed) -> Vec<String>) -> Vec<String> {
    let of = |shader: &Shader| {
        let parsed =
            Parsed::new(&shader.text, shader.entry).unwrap_or_else(|e| panic!("{}: {e:#}", shader.label));
        judge(&parsed).into_iter().map(|fault| format!("{}: {fault}", shader.label)).collect::<Vec<_>>()
    };
    let all = variants();
    assert!(all.len() > 80, "{} variants: has the list shrunk?", all.len());
    all.iter().flat_map(of).collect()
}

#[test]
fn lints() {
    let limit = |parsed: &Parsed| match parsed.has_matrices() {
        true => TileLimits::COOPERATIVE_BYTES as u32,
        false => TileLimits::GENEROUS.workgroup_bytes as u32,
    };
    let found = faults(|parsed| lint(parsed, limit(parsed)).iter().map(ToString::to_string).collect());
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn tiles_for_webgpu_fit_its_workgroup_memory() {
    for dim in [1, 7, 32, 64, 80, 100, 128, 200, 256] {
        let variant = AttentionVariant {
            tile: Tile::choose(dim, dim, 64, 64, TileLimits::WEBGPU).unwrap(),
            head_dim: dim,
            value_dim: dim,
            q: ElementType::F32,
            kv: ElementType::F32,
            output: ElementType::F32,
            aligned_q: false,
            aligned_kv: false,
            aligned_out: false,
            block_q: 64,
            block_k: 64,
            q_order: false,
            k_order: false,
            packed: false,
            chosen_heads: false,
            score: Score::new(),
            stats: Stats::Lse,
            accumulate: false,
            chunks: None,
        };
        let shader = variant.shader();
        let parsed = Parsed::new(&shader.text, shader.entry).unwrap();
        assert_eq!(lint(&parsed, 16_384), [], "{}", shader.label);
        // The memory is really counted.
        assert!(!lint(&parsed, 256).is_empty(), "{}", shader.label);
    }
}

#[test]
fn translations() {
    let found = faults(|parsed| {
        let of = |language: Language| {
            if parsed.has_matrices() && !language.has_matrices() {
                return None;
            }
            let text = match translate(parsed, language) {
                Ok(text) => text,
                Err(error) => return Some(format!("{language:?}: {error:#}")),
            };
            (text.len() < 500).then(|| format!("{language:?}: only {} characters", text.len()))
        };
        Language::ALL.into_iter().filter_map(of).collect()
    });
    assert!(found.is_empty(), "{found:#?}");
}
