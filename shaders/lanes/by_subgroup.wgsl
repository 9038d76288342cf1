// Lanes of a subgroup share their queries, and the compiler sees that they do: row r comes from the subgroup's number, not from the
// lane's. What is then the same for a whole subgroup it may load once and keep once, where a core can: Intel's. The entry point.

@compute @workgroup_size(LANES)
fn attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) index: u32, @builtin(subgroup_id) subgroup: u32,
             @builtin(subgroup_invocation_id) own: u32, @builtin(subgroup_size) size: u32) {
    let place = group.y * groups.x + group.x;
    // A compiler that may choose the size knows it in the end, and leaves one of these out.
    if (size <= LANES_PER_ROW) {
        let per_row = LANES_PER_ROW / size;
        attend_rows(place, Lane(subgroup * size + own, subgroup / per_row, subgroup % per_row * size + own));
    } else {
        attend_rows(place, lane_at(index));
    }
}
