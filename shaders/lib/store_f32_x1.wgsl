// f32 output rows of any start and length.
alias out_word = f32;

fn store_out(row: u32, group: u32, value: vec4<f32>) {
    for (var t = 0u; t < min(4u, VALUE_DIM - 4u * group); t++) { out[row + 4u * group + t] = value[t]; }
}

fn load_out(row: u32, group: u32) -> vec4<f32> {
    let c = vec4(row) + min(vec4(4u * group) + vec4(0u, 1u, 2u, 3u), vec4(VALUE_DIM - 1u));
    return vec4(out[c.x], out[c.y], out[c.z], out[c.w]);
}
