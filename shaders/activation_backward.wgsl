// Gradients through an activation, one lane 4 elements, from the gradient d of h = act(x), or of h = act(x) g where there is a gate:
//
//     dx = d act'(x)        or dx = d g act'(x)        dg = d act(x)
//
// h itself is written where the next product needs it. Tensors may lie over each other: a lane reads its elements, then writes.

@compute @workgroup_size(LANES)
fn activate_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let at = 4u * (work * LANES + lane);
    if (work >= params.end_work || at >= params.len) { return; }
    let count = params.len - at;
    let x = load_x(at, count);
    let d = load_dout(at, count);
    if (!GATED) {
        store_dx(at, count, sloped(x, d));
        if (KEEPS_HIDDEN) { store_hidden(at, count, activated(x)); }
        return;
    }
    let gate = load_gate(at, count);
    let value = activated(x);
    store_dx(at, count, sloped(x, d * gate));
    store_dgate(at, count, d * value);
    if (KEEPS_HIDDEN) { store_hidden(at, count, value * gate); }
}
