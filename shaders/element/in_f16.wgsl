// Two f16 of a word.
fn widen_x2(word: u32) -> vec2<f32> { return unpack2x16float(word); }
