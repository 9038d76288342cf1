// A score without segments.

fn begin_segments(at: Head, own: vec4<u32>) {}

fn segment_numbers(at: Head, i: u32) -> vec2<f32> { return vec2(0.0); }

fn own_of_segment(at: Head, own: vec4<u32>, column: u32) -> vec4<bool> { return vec4(false); }

fn segmented(at: Head, column: u32, same: vec4<bool>) -> vec4<f32> { return vec4(0.0); }

fn segment_row(n: u32, head: u32, g: u32) -> vec4<f32> { return vec4(0.0); }
