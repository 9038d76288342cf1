// The gradient of v is not asked for.

fn write_dv(at: Head, kv_head: u32, lane: Lane, t: u32, g: u32, dv: vec4<f32>) {}
