// A score without segments.

fn begin_segments(at: Head) {}

fn segmented(at: Head, j: vec4<u32>, s: vec4<f32>) -> vec4<f32> { return s; }
