// The loss alone.
fn store_out(at: u32, count: u32, value: vec4<f32>) {}
