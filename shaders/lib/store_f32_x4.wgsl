// f32 output rows whose start and length are multiples of 4 elements.
alias out_word = vec4<f32>;

fn store_out(row: u32, group: u32, value: vec4<f32>) { out[row / 4u + group] = value; }

fn load_out(row: u32, group: u32) -> vec4<f32> { return out[row / 4u + group]; }
