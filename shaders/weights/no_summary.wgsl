// The weights alone.

fn begin_summary() {}

fn summarise(j: vec4<u32>, p: vec4<f32>, log_p: vec4<f32>, kept: vec4<bool>) {}

fn finish(lane: u32) {}
