// An additive tensor; minus infinity removes the pair from S.

struct BiasParams { offset: u32, batch: u32, head: u32, query: u32, key: u32 }

@group(0) @binding(BINDING_bias) var<storage, read> bias: array<f32>;           // broadcast to [B, H, Lq, Lk]

fn bias_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {
    let at = at_bias(pairs);
    let b = vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    let minus_infinity = bitcast<vec4<u32>>(b) == vec4(0xff800000u);
    removed = removed | minus_infinity;
    return s + select(b, vec4(0.0), minus_infinity);
}

fn at_bias(pairs: Pairs) -> vec4<u32> {
    let p = params.bias;
    return vec4(p.offset + pairs.batch * p.batch + pairs.head * p.head + pairs.i * p.query) + pairs.j * p.key;
}

fn by_bias(pairs: Pairs, s: vec4<f32>) -> vec4<f32> { return vec4(1.0); }
