// `TENSOR`: written over `OTHER`.
fn store_TENSOR(at: u32, count: u32, value: vec4<f32>) { store_OTHER(at, count, value); }
