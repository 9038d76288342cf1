// Beside out, the state (m, l) is left of a row, so that later parts and splits can merge.

@group(0) @binding(BINDING_state) var<storage, read_write> state: array<vec2<f32>>;     // [splits, B, H, Lq]

// What earlier parts left.
fn earlier(stat: u32) -> vec2<f32> { return state[stat]; }

// Once every lane of the row has read the earlier parts' state.
fn write_stats(end: RowEnd) {
    if (end.inside) { state[end.stat] = vec2(end.m, end.l); }
}
