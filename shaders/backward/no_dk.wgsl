// The gradient of k is not asked for.

fn write_dk(at: Head, kv_head: u32, lane: Lane, t: u32, g: u32, dk: vec4<f32>) {}
