// A score without relative rows: k meets the query itself, and the products are complete.

fn content(head: u32, q: vec4<f32>, g: u32) -> vec4<f32> { return q; }

fn relate(at: Head, tile: KeyTile, own: vec4<u32>) {}

fn with_rows(x: mat4x4<f32>, c: u32) -> mat4x4<f32> { return x; }

fn weigh_rows(w: mat4x4<f32>, c: u32) {}

fn with_weighed_rows(x: mat4x4<f32>, at: Head, tile: KeyTile, own: vec4<u32>, g: u32) -> mat4x4<f32> { return x; }
