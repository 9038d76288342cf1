// A term of a column's sum: an element of x.

struct TermParams { x_at: u32, x_row: u32 }                       // first element, and from row to row

fn term(row: u32, column: u32, count: u32) -> vec4<f32> {
    return load_x(params.terms.x_at + row * params.terms.x_row + column, count);
}
