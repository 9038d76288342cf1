// `TENSOR`: f32 rows whose starts and lengths are multiples of 4.
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = vec4<f32>;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> { return TENSOR[at / 4u]; }
