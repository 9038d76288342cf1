// The step of the online softmax. Scores are in base 2 (log2(e) is in q_scale) where they are scale q . k alone, in base e
// (BASE_E) where terms were added: a score near f32's end times log2(e) would not be finite.

const TWICE_LOG2_E = 2.8853900817779268;

// The weight of a score against a maximum, as a power of the scores' base; at most 1 for scores up to the maximum.
fn power(s: vec4<f32>, maximum: f32) -> vec4<f32> {
    // Halves do not overflow. e^-200 is 0 in f32.
    if (BASE_E) {
        let half = fma(s, vec4(0.5), vec4(-0.5 * maximum));
        // Not `max`, which may take NaN for nothing.
        return exp2(select(half, vec4(-100.0), half < vec4(-100.0)) * TWICE_LOG2_E);
    }
    return exp2(s - maximum);
}

// The same of one old maximum against a new one that is not below it: exactly 1 while it stays, whatever exp2(0) is. The
// bound keeps a first maximum from overflowing.
fn shrink(old: f32, new_maximum: f32) -> f32 {
    if (BASE_E) { return select(exp2(max(fma(old, 0.5, -0.5 * new_maximum), -100.0) * TWICE_LOG2_E), 1.0, old == new_maximum); }
    return select(exp2(max(old - new_maximum, -200.0)), 1.0, old == new_maximum);
}

// lse of a row with this state.
fn log_sum(maximum: f32, sum: f32) -> f32 {
    if (is_zero(sum)) { return DROPPED; }
    if (BASE_E) { return maximum + log2(sum) * 0.6931471805599453; }
    return (maximum + log2(sum)) * 0.6931471805599453;
}

// Exactly 0: the sum of a row without keys. By the bits, which NaN does not pass for 0.
fn is_zero(sum: f32) -> bool { return (bitcast<u32>(sum) & 0x7fffffffu) == 0u; }
