// `out`: 16-bit rows of any start and length, read and written; what lies past `count` elements from `at` on is 0. Two lanes, or two
// rows, may share a 32-bit word: each replaces its own half by atomic bit operations, which leave the other's alone.
@group(0) @binding(BINDING_out) var<storage, read_write> out: array<out_word>;
alias out_word = atomic<u32>;

fn store_out(at: u32, count: u32, value: vec4<f32>) {
    for (var t = 0u; t < min(4u, count); t++) {
        let e = at + t;
        let shift = 16u * (e % 2u);
        let bits = narrow_x2(vec2(value[t], 0.0)) & 0xffffu;
        atomicAnd(&out[e / 2u], 0xffff0000u >> shift);
        atomicOr(&out[e / 2u], bits << shift);
    }
}

fn load_out(at: u32, count: u32) -> vec4<f32> {
    let c = vec4(0u, 1u, 2u, 3u);
    let e = vec4(at) + min(c, vec4(count - 1u));
    let x = vec4(out_element(e.x), out_element(e.y), out_element(e.z), out_element(e.w));
    return select(vec4(0.0), x, c < vec4(count));
}

fn out_element(e: u32) -> f32 { return widen_x2(atomicLoad(&out[e / 2u]))[e % 2u]; }
