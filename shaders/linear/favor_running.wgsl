// FAVOR+ (Choromanski 2020), each row beside its own largest feature: exp(y - max y) + eps. What the row is worth as a whole, max y -
// |x|^2 / (2 sqrt d), is a logarithm beside it; of a query it cancels.
fn mapped(y: vec4<f32>, top: vec4<f32>, half: f32) -> vec4<f32> { return exp(max(y - top, vec4(-100.0))) + params.kernel.feature_eps; }
fn log_weight(top: f32, half: f32) -> f32 { return top - half; }
fn slope(phi: vec4<f32>) -> vec4<f32> { return max(phi - params.kernel.feature_eps, vec4(0.0)); }
