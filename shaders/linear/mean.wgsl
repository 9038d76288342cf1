// The end of a row: its sums over the denominator.
fn row_end(at: At, q_at: u32, out_at: u32, sum: f32, top: f32) -> vec4<f32> { return vec4(sum, 0.0, 0.0, 0.0); }
fn ended(at: u32, sum: vec4<f32>, end: vec4<f32>) -> vec4<f32> { return select(sum / end.x, vec4(0.0), vec4(end.x == 0.0)); }
fn leave_row(at: u32, end: vec4<f32>) {}
