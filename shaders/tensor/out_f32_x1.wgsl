// `out`: f32 rows of any start and length; at most `count` elements from `at` on are the row's.
@group(0) @binding(BINDING_out) var<storage, read_write> out: array<out_word>;
alias out_word = f32;

fn store_out(at: u32, count: u32, value: vec4<f32>) {
    for (var t = 0u; t < min(4u, count); t++) { out[at + t] = value[t]; }
}

fn load_out(at: u32, count: u32) -> vec4<f32> {
    let e = vec4(at) + min(vec4(0u, 1u, 2u, 3u), vec4(count - 1u));
    return vec4(out[e.x], out[e.y], out[e.z], out[e.w]);
}
