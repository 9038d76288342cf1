// `TENSOR`: bf16 rows whose starts and lengths are multiples of 4. A bf16 is the upper half of an f32.
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = vec2<u32>;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> {
    let word = TENSOR[at / 4u];
    return bitcast<vec4<f32>>(vec4(word.x << 16u, word.x & 0xffff0000u, word.y << 16u, word.y & 0xffff0000u));
}
