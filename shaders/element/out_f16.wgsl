// Two f32 rounded to f16. What f16 cannot hold saturates: pack2x16float leaves overflow undefined. NaN and infinity stay what they
// are, by their bits, since `clamp` need not see them.
fn narrow_x2(x: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(x);
    let size = bits & vec2(0x7fffffffu);
    let endless = ((bits >> vec2(16u)) & vec2(0x8000u)) | select(vec2(0x7c00u), vec2(0x7e00u), size > vec2(0x7f800000u));
    let finite = pack2x16float(clamp(x, vec2(-65504.0), vec2(65504.0)));
    let halves = select(vec2(finite & 0xffffu, finite >> 16u), endless, size >= vec2(0x7f800000u));
    return halves.x | (halves.y << 16u);
}
