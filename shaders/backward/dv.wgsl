// The gradient of v is written.

fn write_value(at: Head, row: u32, g: u32, dv: vec4<f32>) {
    if (row >= at.end_row) { return; }
    let to = row_at(params.dv, at.batch, at.head / params.kernel.heads_per_kv_head, query_at(at, row)) + 4u * g;
    let count = VALUE_DIM - 4u * g;
    var x = dv;
    if (ACCUMULATE) { x += load_dv(to, count); }
    store_dv(to, count, x);
}
