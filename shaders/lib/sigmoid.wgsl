// 1 / (1 + exp(-x)), by exp(-|x|) on both sides of 0: nothing overflows, and below 0 it is right relative to its size. NaN stays NaN.
fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    let z = exp(-min(abs(x), vec4(80.0)));
    return or_nan(x, select(z, vec4(1.0), x >= vec4(0.0)) / (1.0 + z));
}

// tanh, NaN for NaN.
fn limited(x: vec4<f32>) -> vec4<f32> { return or_nan(x, hyperbolic(x)); }
