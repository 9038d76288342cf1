// `TENSOR`: f16 rows of any start and length; what lies past `count` elements from `at` on is 0.
@group(0) @binding(BINDING_TENSOR) var<storage, read> TENSOR: array<TENSOR_word>;
alias TENSOR_word = u32;

fn load_TENSOR(at: u32, count: u32) -> vec4<f32> {
    let c = vec4(0u, 1u, 2u, 3u);
    let e = vec4(at) + min(c, vec4(count - 1u));
    let x = vec4(unpack2x16float(TENSOR[e.x / 2u])[e.x % 2u], unpack2x16float(TENSOR[e.y / 2u])[e.y % 2u],
                 unpack2x16float(TENSOR[e.z / 2u])[e.z % 2u], unpack2x16float(TENSOR[e.w / 2u])[e.w % 2u]);
    return select(vec4(0.0), x, c < vec4(count));
}
