// Softmax over the last axis, one workgroup per row:
//
//     y_i = exp(x_i - max x) / sum_j exp(x_j - max x)
//
// A NaN or +infinity makes the row NaN, as does a row of nothing but -infinity; -infinity beside a number weighs 0.

@compute @workgroup_size(LANES)
fn softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let x_at = row * params.x_row;
    let m = max_over_lanes(lane, max_of_x(x_at, lane, params.width));
    var l = sum_over_lanes(lane, own_sum(x_at, lane, m));
    // A number has at least its maximum's weight of 1.
    if (bitcast<u32>(l) == 0u) { l = nan_of(bitcast<u32>(l)); }
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        store_out(row * params.out_row + c, count, exps(load_x(x_at + c, count) - m) / l);
    }
}

fn own_sum(x_at: u32, lane: u32, m: f32) -> f32 {
    var l = vec4(0.0);
    for (var first = 4u * lane; first < params.width; first += BLOCK) {
        var part = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.width); c += 4u * LANES) {
            let count = params.width - c;
            let d = load_x(x_at + c, count) - m;
            // NaN here is NaN in the sum, and so in the whole row. (inf - inf is one.)
            part += select(vec4(0.0), or_nan(d, exps(d)), inside(count));
        }
        l += part;
    }
    return sum4(l);
}
