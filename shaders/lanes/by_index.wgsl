// Lanes lie in the order of their numbers. The entry point.

@compute @workgroup_size(LANES)
fn attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) index: u32) {
    attend_rows(group.y * groups.x + group.x, lane_at(index));
}
