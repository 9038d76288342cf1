// A term of the gradient of a norm's weight: dout times the normalised element.

struct TermParams { x_row: u32, dout_row: u32 }                   // from row to row

@group(0) @binding(BINDING_records) var<storage, read> records: array<vec4<f32>>;  // [rows], by norm_backward.wgsl

fn term(row: u32, column: u32, count: u32) -> vec4<f32> {
    let z = normalised(records[row], load_x(row * params.terms.x_row + column, count));
    return load_dout(row * params.terms.dout_row + column, count) * z;
}
