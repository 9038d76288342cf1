// `out`: 16-bit rows of any start and length. Two lanes may share a 32-bit word: each replaces its own half by atomic bit
// operations, which commute, so no lane loses the other's half and the result has one value.
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

// Only f32 is read back: the plans never merge into 16 bits, and the shapes refuse it.
fn load_out(at: u32, count: u32) -> vec4<f32> { return vec4(0.0); }
