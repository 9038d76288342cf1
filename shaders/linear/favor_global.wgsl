// FAVOR+ as it was published: m^(-1/2) (exp(y - |x|^2 / (2 sqrt d) - top) + eps), where top is the largest y of a query, or of all keys. The
// factor cancels but for the denominator's eps. Until all keys are known, a key's logarithm keeps its |x|^2 / (2 sqrt d).
fn mapped(y: vec4<f32>, top: vec4<f32>, half: f32) -> vec4<f32> {
    return ROOT_OF_FEATURES * (exp(max(y - half - top, vec4(-100.0))) + params.kernel.feature_eps);
}
fn log_weight(top: f32, half: f32) -> f32 { return select(0.0, half, MODE == LATER); }
fn slope(phi: vec4<f32>) -> vec4<f32> { return max(phi - ROOT_OF_FEATURES * params.kernel.feature_eps, vec4(0.0)); }
