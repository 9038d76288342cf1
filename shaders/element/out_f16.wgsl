// Two f32 rounded to f16. What f16 cannot hold saturates: pack2x16float leaves overflow undefined.
fn narrow_x2(x: vec2<f32>) -> u32 { return pack2x16float(clamp(x, vec2(-65504.0), vec2(65504.0))); }
