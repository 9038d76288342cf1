// `TENSOR`: the same rows as `OTHER`.
fn load_TENSOR(at: u32, count: u32) -> vec4<f32> { return load_OTHER(at, count); }
