// Scales of a row of A times those of 4 columns.
@group(0) @binding(BINDING_a_scales) var<storage, read> a_scales: array<f32>;
@group(0) @binding(BINDING_b_scales) var<storage, read> b_scales: array<f32>;

fn factors(row: u32, column: u32) -> vec4<f32> {
    let at = select(vec4(0u), min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u)), ROWS_OF_b);
    return a_scales[select(0u, row, ROWS_OF_a)] * vec4(b_scales[at.x], b_scales[at.y], b_scales[at.z], b_scales[at.w]);
}
