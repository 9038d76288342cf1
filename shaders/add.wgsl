// Residual addition, y = x + other, or y = x - other where SUBTRACT: one lane 4 elements of a row. Where IN_PLACE, x is what out holds.

@compute @workgroup_size(LANES)
fn add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
       @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let row_groups = (params.width + 3u) / 4u;
    let item = work * LANES + lane;
    let row = item / row_groups;
    if (work >= params.end_work || row >= params.rows) { return; }
    let c = item % row_groups * 4u;
    let count = params.width - c;
    let at = row * params.out_row + c;
    var y = load_x(row * params.x_row + c, count);
    if (IN_PLACE) { y = load_out(at, count); }
    let other = load_other(row * params.other_row + c, count);
    if (SUBTRACT) { y -= other; } else { y += other; }
    store_out(at, count, y);
}
