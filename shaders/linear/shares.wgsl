fn changed(at: u32, phi: vec4<f32>, z: vec4<f32>) -> vec4<f32> { return select(phi / z, vec4(0.0), z == vec4(0.0)); }
fn leave(line: u32, key: u32, g: u32, at: u32, value: vec4<f32>) { phi[at] = value; }
