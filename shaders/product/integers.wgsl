// B as integers, stored [out, in] alone: scale (q - zero_point), rounded once. Groups are multiples of 32 elements, so that neighbours share a scale.
@group(0) @binding(BINDING_b) var<storage, read> b: array<u32>;
@group(0) @binding(BINDING_scales) var<storage, read> scales: array<f32>;

// `b_at` and `params.b_row` count words. What lies past `count` is 0.
fn b_along_k(b_at: u32, column: u32, k: u32, count: u32) -> vec4<f32> {
    return four_of_column(b_at, column, k, count) * scale_of_column(column, k);
}

fn b_along_columns(b_at: u32, k: u32, column: u32, count: u32) -> vec4<f32> { return vec4(0.0); }

// The same before they are scaled: 4, and 8 that are all there, from a multiple of 8 on. Whether a scale serves less than a column:
const GROUPED = SCALES != BY_TENSOR && SCALES != BY_ROWS;

struct Eight { low: vec4<f32>, high: vec4<f32> }

fn four_of_column(b_at: u32, column: u32, k: u32, count: u32) -> vec4<f32> {
    let x = vec4<f32>(four_of_b(b_at + column * params.b_row, k / 4u) - vec4(zero_point_of_b(scale_at(column, k))));
    return select(vec4(0.0), x, vec4(WHOLE_ROWS) | (vec4(0u, 1u, 2u, 3u) < vec4(count)));
}

fn eight_of_column(b_at: u32, column: u32, k: u32) -> Eight {
    let q = eight_of_b(b_at + column * params.b_row, k / 8u);
    let at = scale_at(column, k);
    let zero = vec4(zero_point_of_b(at));
    return Eight(vec4<f32>(q.low - zero), vec4<f32>(q.high - zero));
}

fn scale_of_column(column: u32, k: u32) -> f32 { return scales[scale_at(column, k)]; }
