// 16-bit output rows of any start and length. Two rows, hence two lanes, may share a 32-bit word: each lane replaces
// its own half by atomic bit operations, which commute, so no lane loses the other's half and the result has one value.
alias out_word = atomic<u32>;

fn store_out(row: u32, group: u32, value: vec4<f32>) {
    for (var t = 0u; t < min(4u, VALUE_DIM - 4u * group); t++) {
        let e = row + 4u * group + t;
        let shift = 16u * (e % 2u);
        let bits = narrow_x2(vec2(value[t], 0.0)) & 0xffffu;
        atomicAnd(&out[e / 2u], 0xffff0000u >> shift);
        atomicOr(&out[e / 2u], bits << shift);
    }
}

// Parts merge in f32 only: the plan never accumulates into a 16-bit output.
fn load_out(row: u32, group: u32) -> vec4<f32> { return vec4(0.0); }
