// `TENSOR`: rows of int8, 4 elements per word, behind a word with the row's scale (decode/quantize.wgsl).
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = u32;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> { return vec4<f32>(unpack4xI8(TENSOR[at / 4u])); }

// Of the row that begins at element `at`. A product with it does not round.
fn scale_of_TENSOR(at: u32) -> f32 { return bitcast<f32>(TENSOR[at / 4u]); }
