// c tanh(score / c).

struct SoftcapParams { cap: f32 }

fn softcap_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    return params.softcap.cap * hyperbolic(s / params.softcap.cap);
}
