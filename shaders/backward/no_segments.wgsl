// A score without segments.

fn begin_segments(at: Head, own: vec4<u32>) {}

fn segmented(at: Head, own: vec4<u32>, column: u32, c: u32) -> vec4<f32> { return vec4(0.0); }

fn with_weighed_segments(x: mat4x4<f32>, at: Head, tile: KeyTile, own: vec4<u32>, g: u32) -> mat4x4<f32> { return x; }
