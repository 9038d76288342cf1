// Two f32 rounded to bf16, to nearest with ties to even, by adding half of the dropped range. A NaN, which that might carry past its
// exponent, is cut off and stays one.
fn narrow_x2(x: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(x);
    let nearest = bits + vec2(0x7fffu) + ((bits >> vec2(16u)) & vec2(1u));
    let rounded = select(nearest, bits | vec2(0x400000u), (bits & vec2(0x7fffffffu)) > vec2(0x7f800000u));
    return (rounded.x >> 16u) | (rounded.y & 0xffff0000u);
}
