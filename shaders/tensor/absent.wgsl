// `TENSOR`: not given.
fn load_TENSOR(at: u32, count: u32) -> vec4<f32> { return vec4(0.0); }
