// Activations of 4 elements: `activated` applies the one that ACTIVATION names, to every f32. NaN stays NaN; an infinity gives the
// function's limit. Where a result is below the smallest normal number, it is 0.

fn activated(x: vec4<f32>) -> vec4<f32> {
    switch ACTIVATION {
        // Negative, and no NaN: in integers, since max(NaN, 0) is 0.
        case RELU: { return select(x, vec4(0.0), (bitcast<vec4<u32>>(x) ^ vec4(0x80000000u)) <= vec4(INFINITY)); }
        case GELU_ERF: { return or_nan(x, gelu_erf(x)); }
        case GELU_TANH: { return or_nan(x, gelu_tanh(x)); }
        case SILU: { return or_nan(x, gated(x, x)); }
        case TANH: { return or_nan(x, hyperbolic(x)); }
        case QUICK_GELU: { return or_nan(x, gated(x, 1.702 * x)); }
        case MISH: { return or_nan(x, mish(x)); }
        default: { return x; }
    }
}

// exp(-t) = m 2^-k. The builtin exp is off by 3 + 2 |t| ULP, so it sees only |r| <= 0.4; and m has no small exponent to lose.
struct Power { m: vec4<f32>, k: vec4<u32> }

// exp(-(t + rest)), t in [0, 256], |rest| < 0.1: t = k ln 2 + r, where ln 2 is a part of 9 bits, whose product with k is
// exact, as is the difference, and the rest. Compilers that take sums apart would join the parts again: what the integers
// do changes no bit, but they do not know that.
fn exp_minus(t: vec4<f32>, rest: vec4<f32>) -> Power {
    let n = floor(fma(t, vec4(1.442695), vec4(0.5)));
    let k = vec4<u32>(n);
    let product = bitcast<vec4<f32>>(bitcast<vec4<u32>>(n * 0.693359375) & vec4(0xffffff80u));
    let difference = bitcast<vec4<f32>>(bitcast<vec4<u32>>(t - product) | (k >> vec4(16u)));
    return Power(exp(-(fma(n, vec4(2.1219444e-4), difference) + rest)), k);
}

// x 2^-k, by its exponent: nothing is rounded on the way; 0 where the result is not normal.
fn scaled(x: vec4<f32>, k: vec4<u32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(x);
    let normal = ((bits >> vec4(23u)) & vec4(255u)) > k;
    return bitcast<vec4<f32>>(select(vec4(0u), bits - (k << vec4(23u)), normal));
}

// x Phi(x), Phi(-y) = exp(-y^2 / 2) h(y), and Phi(y) = 1 - Phi(-y). y^2 / 2 is the square of y's upper half, which is exact,
// and the small rest. h(y) (1 + 2 y) is a polynomial in t = (y - 3.5) / (y + 3.5), within 0.42 2^-24 of its value for y <= 14
// (minimax, by Remez' exchange; the form is that of Shepherd & Laframboise 1981).
fn gelu_erf(x: vec4<f32>) -> vec4<f32> {
    let y = in_normal_tail(x);
    let e = normal_power(y);
    let q = e.m * normal_tail(y); // 2^k Phi(-y)
    let above = x >= vec4(0.0);
    let product = max(x, vec4(-15.0)) * select(q, 1.0 - scaled(q, e.k), above);
    return scaled(product, select(e.k, vec4(0u), above));
}

// |x|; beyond 14 the tail is below every normal number.
fn in_normal_tail(x: vec4<f32>) -> vec4<f32> { return min(abs(x), vec4(15.0)); }

// exp(-y^2 / 2).
fn normal_power(y: vec4<f32>) -> Power {
    let high = bitcast<vec4<f32>>(bitcast<vec4<u32>>(y) & vec4(0xfffff000u));
    return exp_minus(0.5 * high * high, 0.5 * (y - high) * (y + high));
}

// h(y).
fn normal_tail(y: vec4<f32>) -> vec4<f32> {
    let t = (y - vec4(3.5)) / (y + vec4(3.5));
    var p = fma(t, vec4(2.9200042e-4), vec4(2.797293e-5));
    p = fma(t, p, vec4(-3.1347023e-3));
    p = fma(t, p, vec4(1.9983766e-3));
    p = fma(t, p, vec4(2.23004e-2));
    p = fma(t, p, vec4(-7.9599075e-2));
    p = fma(t, p, vec4(1.3773637e-1));
    p = fma(t, p, vec4(-1.2427992e-1));
    p = fma(t, p, vec4(-8.285484e-3));
    p = fma(t, p, vec4(8.5076123e-1));
    return p / fma(vec4(2.0), y, vec4(1.0));
}

// x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
fn gelu_tanh(x: vec4<f32>) -> vec4<f32> {
    return gated(x, tanh_argument(clamped(x)));
}

// x^3 must not overflow; s is far past 128 there.
fn clamped(x: vec4<f32>) -> vec4<f32> { return clamp(x, vec4(-100.0), vec4(100.0)); }

// 2 u.
fn tanh_argument(y: vec4<f32>) -> vec4<f32> { return y * fma(vec4(0.07135481), y * y, vec4(1.5957692)); }

// exp(-|s|); x exp(-128) is below every normal number for x >= -128.
fn logistic_power(s: vec4<f32>) -> Power { return exp_minus(min(abs(s), vec4(128.0)), vec4(0.0)); }

// x / (1 + exp(-s)), by exp(-|s|) on both sides of 0, for s <= x < 0 or 0 <= x <= s.
fn gated(x: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    let e = logistic_power(s);
    let above = s >= vec4(0.0);
    let product = max(x, vec4(-128.0)) * (select(e.m, vec4(1.0), above) / (1.0 + scaled(e.m, e.k)));
    return scaled(product, select(e.k, vec4(0u), above));
}

// x tanh(ln(1 + e^x)) = x top / bottom, by z = exp(-|x|) on both sides of 0: 1 + 2 z over 1 + 2 z (1 + z) above, z (2 + z) over
// 2 + z (2 + z) below, where z comes in last.
fn mish(x: vec4<f32>) -> vec4<f32> {
    let e = logistic_power(x);
    let above = x >= vec4(0.0);
    let quotient = mish_quotient(scaled(e.m, e.k), above);
    return scaled(max(x, vec4(-128.0)) * (select(e.m, vec4(1.0), above) * quotient), select(e.k, vec4(0u), above));
}

fn mish_quotient(z: vec4<f32>, above: vec4<bool>) -> vec4<f32> {
    return select(2.0 + z, fma(vec4(2.0), z, vec4(1.0)), above) / mish_bottom(z, above);
}

fn mish_bottom(z: vec4<f32>, above: vec4<bool>) -> vec4<f32> {
    return select(fma(z, z + 2.0, vec4(2.0)), fma(2.0 * z, z + 1.0, vec4(1.0)), above);
}
