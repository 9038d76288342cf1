// 2^n for -126 <= n <= 127, exactly.
fn power_of_two(n: i32) -> f32 { return bitcast<f32>(u32(n + 127) << 23u); }
