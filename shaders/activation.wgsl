// An activation of every element, one lane 4 of them: out = act(x), times a gate where there is one.

@compute @workgroup_size(LANES)
fn activate(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let at = 4u * (work * LANES + lane);
    if (work >= params.end_work || at >= params.len) { return; }
    let count = params.len - at;
    var value = activated(load_x(at, count));
    if (GATED) { value *= load_gate(at, count); }
    store_out(at, count, value);
}
