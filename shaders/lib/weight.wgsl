// The weight of a score against the maximum of its row, once attention has left the row's state.

const TWICE_LOG2_E = 2.8853900817779268;

// How far scores may be above their maximum: cooperative matrices keep one that is late (tile/cooperative.wgsl), others do not.
const LATE = select(0.0, select(8.0, 5.545177444479562, BASE_E), LATE_MAXIMA);

const LOWEST = -0x1.fffffcp+127f;

// A score that terms have changed is no lower than that, as attention had it (lib/scores.wgsl): two masks of f32::MIN make minus infinity.
fn no_lower(s: vec4<f32>) -> vec4<f32> { return max(s, vec4(LOWEST)); }

// As lib/online_softmax.wgsl has it, but at most l, and 1 where no maximum is late: a score may be rounded up here that was rounded down
// where the maximum was taken, and at -1e9 one step is 64.
fn weight(s: vec4<f32>, maximum: f32, over_l: f32) -> vec4<f32> {
    var e: vec4<f32>;
    if (BASE_E) {
        let half = fma(s, vec4(0.5), vec4(-0.5 * maximum));
        e = exp2(clamp(half, vec4(-100.0), vec4(0.5 * LATE)) * TWICE_LOG2_E);
    } else {
        e = exp2(min(s - maximum, vec4(LATE)));
    }
    if (LATE_MAXIMA) { return min(e, vec4(1.0 / over_l)); }
    return e;
}
