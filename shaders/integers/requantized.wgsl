// The sums as bytes of another scale, packed.
@group(0) @binding(BINDING_out) var<storage, read_write> out: array<u32>;

fn finish(row: u32, column: u32, sums: vec4<i32>) {
    let steps = vec4<f32>(sums) * (factors(row, column) * params.out_factor);
    let q = vec4<i32>(clamp(round(steps), vec4(-1024.0), vec4(1024.0))) + vec4(params.out_zero_point);
    let bytes = bitcast<vec4<u32>>(clamp(q, vec4(LEAST_OUT), vec4(LEAST_OUT + 255))) & vec4(0xffu);
    let inside = vec4(0u, 1u, 2u, 3u) < vec4(params.columns - column);
    let placed = select(vec4(0u), bytes << vec4(0u, 8u, 16u, 24u), inside);
    out[row * ((params.columns + 3u) / 4u) + column / 4u] = placed.x | placed.y | placed.z | placed.w;
}
