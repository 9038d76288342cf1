// Two f32 rounded to bf16, to nearest with ties to even, by adding half of the dropped range.
fn narrow_x2(x: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(x);
    let rounded = bits + vec2(0x7fffu) + ((bits >> vec2(16u)) & vec2(1u));
    return (rounded.x >> 16u) | (rounded.y & 0xffff0000u);
}
