// NaN by its bits: WGSL may take comparisons, `min` and `max` for free of NaN, and so loses it.

const INFINITY = 0x7f800000u; // bits of |x|; above are the NaNs

fn magnitude(x: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(x) & vec4(0x7fffffffu); }

// y, but x where that is NaN. In integers, to which no rule of floating point applies.
fn or_nan(x: vec4<f32>, y: vec4<f32>) -> vec4<f32> {
    let bits = select(bitcast<vec4<u32>>(y), bitcast<vec4<u32>>(x), magnitude(x) > vec4(INFINITY));
    return bitcast<vec4<f32>>(bits);
}

// A NaN made of bits that the compiler does not know: it refuses one that it does.
fn nan_of(bits: u32) -> f32 { return bitcast<f32>(bits | 0x7fc00000u); }
