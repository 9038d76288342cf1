// No copy in 16 bits.
fn store_rounded(at: u32, count: u32, value: vec4<f32>) {}
