// The summary alone.

fn note(j: vec4<u32>, p: vec4<f32>, kept: vec4<bool>) {}
