// The end of a row that gradients ask for again: beside its mean, behind it, (denominator, the largest logarithm of a weight).
fn row_end(at: At, q_at: u32, out_at: u32, sum: f32, top: f32) -> vec4<f32> { return vec4(sum, top, 0.0, 0.0); }
fn ended(at: u32, sum: vec4<f32>, end: vec4<f32>) -> vec4<f32> { return select(sum / end.x, vec4(0.0), vec4(end.x == 0.0)); }
fn leave_row(at: u32, end: vec4<f32>) { store_out(at + 4u * VALUE_GROUPS, 4u, end); }
