// `out`: f32 rows whose starts and lengths are multiples of 4.
alias out_word = vec4<f32>;

fn store_out(at: u32, count: u32, value: vec4<f32>) { out[at / 4u] = value; }

fn load_out(at: u32, count: u32) -> vec4<f32> { return out[at / 4u]; }
