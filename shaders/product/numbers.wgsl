// B in a floating-point type: 4 elements along k of a column, or along the columns, as it is stored.

fn b_along_k(b_at: u32, column: u32, k: u32, count: u32) -> vec4<f32> { return load_b(b_at + column * params.b_row + k, count); }

fn b_along_columns(b_at: u32, k: u32, column: u32, count: u32) -> vec4<f32> { return load_b(b_at + k * params.b_row + column, count); }

// The same before they are scaled, as numbers are not: 4, and 8 that are all there.
const GROUPED = false;

struct Eight { low: vec4<f32>, high: vec4<f32> }

fn four_of_column(b_at: u32, column: u32, k: u32, count: u32) -> vec4<f32> { return b_along_k(b_at, column, k, count); }

fn eight_of_column(b_at: u32, column: u32, k: u32) -> Eight {
    return Eight(b_along_k(b_at, column, k, 8u), b_along_k(b_at, column, k + 4u, 4u));
}

fn scale_of_column(column: u32, k: u32) -> f32 { return 1.0; }
