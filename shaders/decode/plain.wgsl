// Rows are copied.

fn new_group(x_at: u32, position: u32, c: u32) -> vec4<f32> { return load_x(x_at + c, DIM - c); }
