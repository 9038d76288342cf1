// Beside out, lse is left of a row.

@group(0) @binding(BINDING_lse) var<storage, read_write> lse: array<f32>;       // [B, H, Lq]

fn earlier(stat: u32) -> vec2<f32> { return vec2(DROPPED, 0.0); }

fn write_stats(end: RowEnd) {
    if (end.inside) { lse[end.stat] = log_sum(end.m, end.l); }
}
