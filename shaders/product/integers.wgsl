// B as integers, stored [out, in] alone: scale (q - zero_point), rounded once. Groups are multiples of 4 elements, so that 4 along k share a scale.
@group(0) @binding(BINDING_b) var<storage, read> b: array<u32>;
@group(0) @binding(BINDING_scales) var<storage, read> scales: array<f32>;

// `b_at` and `params.b_row` count words. What lies past `count` is 0.
fn b_along_k(b_at: u32, column: u32, k: u32, count: u32) -> vec4<f32> {
    let at = scale_at(column, k);
    let x = vec4<f32>(four_of_b(b_at + column * params.b_row, k / 4u) - vec4(zero_point_of_b(at))) * scales[at];
    return select(vec4(0.0), x, vec4(WHOLE_ROWS) | (vec4(0u, 1u, 2u, 3u) < vec4(count)));
}

fn b_along_columns(b_at: u32, k: u32, column: u32, count: u32) -> vec4<f32> { return vec4(0.0); }
