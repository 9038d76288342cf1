// Derivatives of the activations of 4 elements, times a gradient: `sloped` takes the one that ACTIVATION names. NaN stays NaN; at an infinity
// it is the limit.

fn sloped(x: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        // 0 at 0. What is behind it counts in no way, be it infinite.
        case RELU: { return or_nan(x, select(vec4(0.0), d, x > vec4(0.0))); }
        case GELU_ERF: { return or_nan(x, d * gelu_erf_slope(x)); }
        case GELU_TANH: { return or_nan(x, d * gelu_tanh_slope(x)); }
        case SILU: {
            let y = clamp(x, vec4(-128.0), vec4(128.0)); // beyond, the limits: x exp(-128) is below every normal number
            return or_nan(x, d * gated_slope(y, y));
        }
        case TANH: { return or_nan(x, d * hyperbolic_slope(x)); }
        case QUICK_GELU: {
            let y = 1.702 * clamp(x, vec4(-128.0), vec4(128.0));
            return or_nan(x, d * gated_slope(y, y));
        }
        case MISH: { return or_nan(x, d * mish_slope(clamp(x, vec4(-128.0), vec4(128.0)))); }
        default: { return d; }
    }
}

// Phi(x) + x phi(x). With y = |x|: Phi(-y) = exp(-y^2 / 2) h(y), so that it is exp(-y^2 / 2) (h(y) - y / sqrt(2 pi)) below 0, and 1 less that
// above.
fn gelu_erf_slope(x: vec4<f32>) -> vec4<f32> {
    let y = in_normal_tail(x);
    let e = normal_power(y);
    let tail = e.m * fma(vec4(-0.3989423), y, normal_tail(y));
    return select(scaled(tail, e.k), 1.0 - scaled(tail, e.k), x >= vec4(0.0));
}

// Of s = 2 u, and x times the derivative of s.
fn gelu_tanh_slope(x: vec4<f32>) -> vec4<f32> {
    let y = clamped(x);
    return gated_slope(tanh_argument(y), y * fma(vec4(0.21406445), y * y, vec4(1.5957692)));
}

// Of x sigmoid(s): sigmoid(s) (1 + u sigmoid(-s)), u = x ds / dx, by z = exp(-|s|) on both sides of 0:
// (1 + z + u z) / (1 + z)^2 above, z (1 + z + u) / (1 + z)^2 below.
fn gated_slope(s: vec4<f32>, u: vec4<f32>) -> vec4<f32> {
    let e = logistic_power(s);
    let z = scaled(e.m, e.k);
    let above = s >= vec4(0.0);
    let whole = 1.0 + z;
    let quotient = fma(u, select(vec4(1.0), z, above), whole) / (whole * whole);
    return select(scaled(quotient * e.m, e.k), quotient, above);
}

// 1 - tanh(x)^2 = 4 z / (1 + z)^2, z = exp(-2 |x|).
fn hyperbolic_slope(x: vec4<f32>) -> vec4<f32> {
    let e = logistic_power(2.0 * x);
    let whole = 1.0 + scaled(e.m, e.k);
    return scaled(4.0 * e.m / (whole * whole), e.k);
}

// tanh(ln(1 + e^x)), as `mish` has it, and x times its derivative: 4 x z^2 (1 + z) / bottom^2 above, z 4 x (1 + z) / bottom^2 below.
fn mish_slope(x: vec4<f32>) -> vec4<f32> {
    let e = logistic_power(x);
    let z = scaled(e.m, e.k);
    let above = x >= vec4(0.0);
    let bottom = mish_bottom(z, above);
    let curved = 4.0 * x * (1.0 + z) / (bottom * bottom);
    let slope = mish_quotient(z, above) + select(curved, curved * z * z, above);
    return select(scaled(slope * e.m, e.k), slope, above);
}
