// The state (m, l) of a row over all splits.

@group(0) @binding(BINDING_total) var<storage, read_write> total: array<vec2<f32>>;     // [B, H, Lq]

fn write_total(end: RowEnd) {
    if (end.inside) { total[end.stat] = vec2(end.m, end.l); }
}
