// A score without relative rows: k meets the query itself.

fn content(head: u32, q: vec4<f32>, g: u32) -> vec4<f32> { return q; }

fn related(at: Head, own: vec4<u32>, column: u32) -> vec4<f32> { return vec4(0.0); }

fn rows_of_pairs(at: Head, own: vec4<u32>, j: u32) -> vec4<u32> { return vec4(0u); }

fn related_row(row: u32, g: u32) -> vec4<f32> { return vec4(0.0); }
