// The gradient of q is written: dq_i = scale sum_j f_ij ds_ij k_j, with relative rows k_j + r.

fn item_of(work: u32) -> vec3<u32> {
    let item = item_in_order(work, head_items());
    return vec3(item.x, nth_head(item.y), item.z);
}

fn write_head(at: Head, row: u32, g: u32, dq: vec4<f32>) {
    if (row >= at.end_row) { return; }
    let to = row_at(params.dq, at.batch, at.head, query_at(at, row)) + 4u * g;
    let count = HEAD_DIM - 4u * g;
    var x = params.kernel.scale * dq;
    if (ACCUMULATE) { x += load_dq(to, count); }
    store_dq(to, count, x);
}
