// `TENSOR`: f32 rows of any start and length; what lies past `count` elements from `at` on is 0.
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = f32;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> {
    let c = vec4(0u, 1u, 2u, 3u);
    let e = vec4(at) + min(c, vec4(count - 1u));
    return select(vec4(0.0), vec4(TENSOR[e.x], TENSOR[e.y], TENSOR[e.z], TENSOR[e.w]), c < vec4(count));
}
