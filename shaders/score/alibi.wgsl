// -slope_h D, or -slope_h |D| where symmetric.

struct AlibiParams { symmetric: u32 }

@group(0) @binding(BINDING_slopes) var<storage, read> slopes: array<f32>;       // [H]

fn alibi_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let distance = select(pairs.distance, abs(pairs.distance), vec4(params.alibi.symmetric != 0u));
    return s - slopes[pairs.head] * vec4<f32>(distance);
}
