// The gradient of v is written.

fn write_dv(at: Head, kv_head: u32, lane: Lane, t: u32, g: u32, dv: vec4<f32>) {
    if (at.first_row + lane.r + t * LANES >= at.end_row) { return; }
    let to = row_at(params.dv, at.batch, kv_head, own_j[t]) + 4u * g;
    let count = VALUE_DIM - 4u * g;
    var x = dv;
    if (ACCUMULATE) { x += load_dv(to, count); }
    store_dv(to, count, x);
}
