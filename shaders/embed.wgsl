// Embedding lookup, y_r = table[ids_r], or y_r += table[ids_r] where INTO: one lane 4 elements of a row. An id past the
// table's end has no row: its embedding is 0.

@group(0) @binding(BINDING_ids) var<storage, read> ids: array<u32>;               // [rows]

@compute @workgroup_size(LANES)
fn embed(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let row_groups = (params.width + 3u) / 4u;
    let item = work * LANES + lane;
    let row = item / row_groups;
    if (work >= params.end_work || row >= params.rows) { return; }
    let c = item % row_groups * 4u;
    let count = params.width - c;
    let id = ids[row];
    var y = vec4(0.0);
    if (id < params.table_rows) { y = load_table(id * params.other_row + c, count); }
    let at = params.out_at + row * params.out_row + c;
    if (INTO) { y += load_out(at, count); }
    store_out(at, count, y);
}
