// Bits of f32 in an order: that of the numbers, the NaNs beyond both ends. An integer's comparison loses none of them.
fn ordered(bits: vec4<u32>) -> vec4<u32> {
    return bits ^ select(vec4(0x80000000u), vec4(0xffffffffu), bits >= vec4(0x80000000u));
}

fn number_of(key: u32) -> f32 { return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, key >= 0x80000000u)); }

const LEAST = 0x00800000u;      // of the lowest f32
const MOST = 0xff7fffffu;       // of the largest
