// Gradient descent: g += decay p;  b = momentum b + g;  p -= rate b, or p -= rate (g + momentum b) that looks ahead.

struct SgdParams { rate: f32, momentum: f32, decay: f32, nesterov: u32 }

fn stepped(at: u32, count: u32, p: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> {
    let g = fma(vec4(params.rule.decay), p, gradient);
    let b = fma(vec4(params.rule.momentum), before(load_first(at, count)), g);
    store_first(at, count, b);
    let ahead = fma(vec4(params.rule.momentum), b, g);
    return fma(vec4(-params.rule.rate), select(b, ahead, params.rule.nesterov != 0u), p);
}
