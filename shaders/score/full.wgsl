// score = softcap(scale q . k) + bias(i, j) + slope_h (j - i), each term where its constant asks for it; then base 2.
const SCORES_NEED_POSITIONS = true;
const SCORES_MAY_DROP = HAS_BIAS;
const LOG2_E = 1.4426950408889634;

fn score(batch: u32, head: u32, i: u32, j: vec4<u32>, products: vec4<f32>) -> vec4<f32> {
    var s = products;
    var removed = vec4(false);
    if (HAS_SOFTCAP) { s = params.softcap * tanh_of(s / params.softcap); }
    if (HAS_BIAS) {
        let at = vec4(batch * params.bias_batch + head * params.bias_head + i * params.bias_query)
            + j * params.bias_key;
        let b = vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
        removed = bitcast<vec4<u32>>(b) == vec4(0xff800000u); // minus infinity: the pair is not in S
        s += select(b, vec4(0.0), removed);
    }
    if (HAS_ALIBI) {
        let slope = bitcast<f32>(mask[params.slopes_at + head]);
        s += slope * vec4<f32>(vec4<i32>(j) - vec4(i32(i)));
    }
    // Times log2(e) this stays finite and above DROPPED, even for a bias of f32::MIN.
    s = clamp(s, vec4(-2.3e38), vec4(2.3e38)) * LOG2_E;
    return select(s, vec4(DROPPED), removed);
}

// tanh to a few units in the last place of 1; the built-in's error is not bounded usefully near 0.
fn tanh_of(x: vec4<f32>) -> vec4<f32> {
    let t = exp2(max(abs(x) * (-2.0 * LOG2_E), vec4(-100.0)));
    return sign(x) * ((1.0 - t) / (1.0 + t));
}
