// No momentum.
fn load_first(at: u32, count: u32) -> vec4<f32> { return vec4(0.0); }
fn store_first(at: u32, count: u32, value: vec4<f32>) {}
