// A score without relative rows: k meets the query itself.

fn content(head: u32, q: vec4<f32>, g: u32) -> vec4<f32> { return q; }

fn related(at: Head, own: vec4<u32>, column: u32) -> vec4<f32> { return vec4(0.0); }

fn with_weighed_related(x: mat4x4<f32>, at: Head, tile: KeyTile, own: vec4<u32>, g: u32) -> mat4x4<f32> { return x; }
