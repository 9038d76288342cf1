// c tanh(score / c).

struct SoftcapParams { cap: f32 }

fn softcap_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    return params.softcap.cap * hyperbolic(s / params.softcap.cap);
}

// 1 - tanh(score / c)^2.
fn softcap_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let t = hyperbolic(s / params.softcap.cap);
    return fma(-t, t, vec4(1.0));
}
