// AdamW (Loshchilov 2019): m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p = kept p - rate m / (root sqrt(v) + eps), where
// rate has the correction of m in it, and root is that of v.

struct AdamwParams { rate: f32, kept: f32, beta1: f32, new1: f32, beta2: f32, new2: f32, root: f32, eps: f32 }

const SMALLEST = 0x1p-126f; // the root of 0 need not be 0

fn stepped(at: u32, count: u32, p: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    let m = fma(vec4(params.rule.beta1), before(load_first(at, count)), params.rule.new1 * g);
    let v = fma(vec4(params.rule.beta2), before(load_second(at, count)), params.rule.new2 * g * g);
    store_first(at, count, m);
    store_second(at, count, v);
    let size = fma(sqrt(max(v, vec4(SMALLEST))), vec4(params.rule.root), vec4(params.rule.eps));
    return fma(vec4(-params.rule.rate), m / size, params.rule.kept * p);
}
