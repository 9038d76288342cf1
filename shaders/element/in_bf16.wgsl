// bf16 tensors: a bf16 is the upper half of an f32, two of them in 32 bits.
alias in_x4 = vec2<u32>;
alias in_x1 = u32;
const ELEMENTS_IN_X1 = 2u;

fn widen_x4(word: in_x4) -> vec4<f32> {
    let bits = vec4(word.x << 16u, word.x & 0xffff0000u, word.y << 16u, word.y & 0xffff0000u);
    return bitcast<vec4<f32>>(bits);
}

fn widen_x1(word: in_x1, index: u32) -> f32 {
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, index % 2u == 1u));
}
