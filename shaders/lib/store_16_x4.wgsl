// 16-bit output rows whose start and length are multiples of 4 elements.
alias out_word = vec2<u32>;

fn store_out(row: u32, group: u32, value: vec4<f32>) {
    out[row / 4u + group] = vec2(narrow_x2(value.xy), narrow_x2(value.zw));
}

// Parts merge in f32 only: the plan never accumulates into a 16-bit output.
fn load_out(row: u32, group: u32) -> vec4<f32> { return vec4(0.0); }
