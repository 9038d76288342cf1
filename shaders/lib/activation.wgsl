// Activations of 4 elements: `activated` applies the one that ACTIVATION names. No infinity arises: every argument of exp
// is clamped to [-80, 0], where the result is a normal number, and what the clamp changes is below 2^-100 of x.

fn activated(x: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        case RELU: { return max(x, vec4(0.0)); }
        case GELU_ERF: { return gelu_erf(x); }
        case GELU_TANH: { return gelu_tanh(x); }
        case SILU: { return gated(x, x); }
        case TANH: { return hyperbolic(x); }
        default: { return x; }
    }
}

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), without cancellation: Phi(-y) = erfc(y / sqrt 2) / 2, and
// erfc(z) = exp(-z^2) t (a1 + t (a2 + t (a3 + t (a4 + t a5)))), t = 1 / (1 + p z), within 1.5e-7 (Abramowitz & Stegun 7.1.26).
fn gelu_erf(x: vec4<f32>) -> vec4<f32> {
    let y = min(abs(x), vec4(12.0)); // beyond, the tail is below 1e-32
    let t = 1.0 / fma(vec4(0.23164189), y, vec4(1.0)); // p / sqrt 2
    let p = fma(t, fma(t, fma(t, fma(t, vec4(1.061405429), vec4(-1.453152027)), vec4(1.421413741)), vec4(-0.284496736)),
                vec4(0.254829592));
    return max(x, vec4(0.0)) - abs(x) * (0.5 * t * p * exp(-0.5 * y * y));
}

// x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
fn gelu_tanh(x: vec4<f32>) -> vec4<f32> {
    let y = clamp(x, vec4(-100.0), vec4(100.0)); // x^3 must not overflow; s is far past 80 there
    return gated(x, 1.5957691216057308 * (y + 0.044715 * y * y * y));
}

// x / (1 + exp(-s)), by exp(-|s|) on both sides of 0.
fn gated(x: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    let z = exp(-min(abs(s), vec4(80.0)));
    return x * (select(z, vec4(1.0), s >= vec4(0.0)) / (1.0 + z));
}

// tanh(x) = (1 - z) / (1 + z) with z = exp(-2 |x|), and the sign of x. Below 1/4, where that cancels, the series
// x - x^3 / 3 + 2 x^5 / 15 - 17 x^7 / 315 + 62 x^9 / 2835; the next term is below 1e-8 x.
fn hyperbolic(x: vec4<f32>) -> vec4<f32> {
    let y = abs(x);
    let z = exp(-min(2.0 * y, vec4(80.0)));
    let quotient = (1.0 - z) / (1.0 + z);
    let c = min(y, vec4(0.25));
    let q = c * c;
    let p = fma(q, fma(q, fma(q, fma(q, vec4(0.021869488), vec4(-0.053968254)), vec4(0.13333333)), vec4(-0.33333334)),
                vec4(1.0));
    return select(select(-quotient, quotient, x >= vec4(0.0)), x * p, y < vec4(0.25));
}
