// `TENSOR`: not asked for.
fn store_TENSOR(at: u32, count: u32, value: vec4<f32>) {}
