// Gradient of a softmax by its input, from its output y, one workgroup per row:
//
//     dx_i = y_i (dout_i - sum_j y_j dout_j)

@compute @workgroup_size(LANES)
fn softmax_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let sum = sum_over_lanes(lane, own_sum(row, lane));
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        let y = load_x(row * params.x_row + c, count);
        var dx = y * (load_dout(row * params.other_row + c, count) - sum);
        let at = row * params.out_row + c;
        if (INTO) { dx += load_out(at, count); }
        store_out(at, count, dx);
    }
}

// The lane's share of the sum of y dout.
fn own_sum(row: u32, lane: u32) -> f32 {
    var sum = vec4(0.0);
    for (var first = 4u * lane; first < params.width; first += BLOCK) {
        var part = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.width); c += 4u * LANES) {
            let count = params.width - c;
            // What lies past the row is 0.
            part = fma(load_x(row * params.x_row + c, count), load_dout(row * params.other_row + c, count), part);
        }
        sum += part;
    }
    return sum4(sum);
}
