// `TENSOR`: bf16 rows of any start and length; what lies past `count` elements from `at` on is 0.
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = u32;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> {
    let c = vec4(0u, 1u, 2u, 3u);
    let e = vec4(at) + min(c, vec4(count - 1u));
    let words = vec4(TENSOR[e.x / 2u], TENSOR[e.y / 2u], TENSOR[e.z / 2u], TENSOR[e.w / 2u]);
    let bits = select(words << vec4(16u), words & vec4(0xffff0000u), e % vec4(2u) == vec4(1u));
    return select(vec4(0.0), bitcast<vec4<f32>>(bits), c < vec4(count));
}
