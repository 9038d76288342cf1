// Beside out nothing is left of a row.

fn earlier(stat: u32) -> vec2<f32> { return vec2(DROPPED, 0.0); }

fn write_stats(end: RowEnd) {}
