// `TENSOR`: f16 rows whose starts and lengths are multiples of 4.
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = vec2<u32>;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> {
    let word = TENSOR[at / 4u];
    return vec4(unpack2x16float(word.x), unpack2x16float(word.y));
}
