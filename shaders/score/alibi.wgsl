// -slope_h D, or -slope_h |D| where symmetric.

struct AlibiParams { symmetric: u32 }

@group(0) @binding(BINDING_slopes) var<storage, read> slopes: array<f32>;       // [H]

fn alibi_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let slope = slopes[pairs.head];
    spoilt = spoilt | not_finite(vec4(slope));
    return s - slope * alibi_distance(pairs);
}

fn alibi_distance(pairs: Pairs) -> vec4<f32> {
    return vec4<f32>(select(pairs.distance, abs(pairs.distance), vec4(params.alibi.symmetric != 0u)));
}

fn at_slopes(pairs: Pairs) -> vec4<u32> { return vec4(pairs.head); }

fn by_slopes(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return -alibi_distance(pairs); }
