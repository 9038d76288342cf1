// c tanh(score / c).

struct SoftcapParams { cap: f32 }

fn softcap_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let cap = params.softcap.cap;
    // Below c 2^-13 the score itself is right to 2^-27, and the quotient may be too small for an f32.
    return select(cap * hyperbolic(s / cap), s, abs(s) < vec4(cap * 0x1p-13));
}

// 1 - tanh(score / c)^2.
fn softcap_slope(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let t = hyperbolic(s / params.softcap.cap);
    return fma(-t, t, vec4(1.0));
}
