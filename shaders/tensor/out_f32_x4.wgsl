// `out`: f32 rows whose starts and lengths are multiples of 4.
@group(0) @binding(BINDING_out) var<storage, read_write> out: array<out_word>;
alias out_word = vec4<f32>;

fn store_out(at: u32, count: u32, value: vec4<f32>) { out[at / 4u] = value; }

fn load_out(at: u32, count: u32) -> vec4<f32> { return out[at / 4u]; }
