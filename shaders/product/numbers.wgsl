// B in a floating-point type: 4 elements along k of a column, or along the columns, as it is stored.

fn b_along_k(b_at: u32, column: u32, k: u32, count: u32) -> vec4<f32> { return load_b(b_at + column * params.b_row + k, count); }

fn b_along_columns(b_at: u32, k: u32, column: u32, count: u32) -> vec4<f32> { return load_b(b_at + k * params.b_row + column, count); }
