// The gradient of k is written.

fn write_dk(at: Head, kv_head: u32, lane: Lane, t: u32, g: u32, dk: vec4<f32>) {
    if (at.first_row + lane.r + t * LANES >= at.end_row) { return; }
    let to = row_at(params.dk, at.batch, kv_head, own_j[t]) + 4u * g;
    let count = HEAD_DIM - 4u * g;
    var x = params.kernel.scale * dk;
    if (ACCUMULATE) { x += load_dk(to, count); }
    store_dk(to, count, x);
}
