// The gradient of k is written.

fn write_head(at: Head, row: u32, g: u32, dk: vec4<f32>) {
    if (row >= at.end_row) { return; }
    let to = row_at(params.dk, at.batch, at.head / params.kernel.heads_per_kv_head, query_at(at, row)) + 4u * g;
    let count = HEAD_DIM - 4u * g;
    var x = params.kernel.scale * dk;
    if (ACCUMULATE) { x += load_dk(to, count); }
    store_dk(to, count, x);
}
