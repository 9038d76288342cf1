// score / t_h.

@group(0) @binding(BINDING_temperature) var<storage, read> temperature: array<f32>;     // [H]

fn temperature_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let t = temperature[pairs.head];
    spoilt = spoilt | not_finite(vec4(t)) | vec4((bitcast<u32>(t) & 0x7fffffffu) == 0u);
    return s / t;
}

// 1 / t_h.
fn temperature_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return vec4(1.0) / temperature[pairs.head]; }

fn at_temperature(pairs: Pairs) -> vec4<u32> { return vec4(pairs.head); }

// -score / t_h^2.
fn by_temperature(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return -(s / temperature[pairs.head]) / temperature[pairs.head]; }
