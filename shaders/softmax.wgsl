// Softmax over the last axis, one workgroup a row:
//
//     y_i = exp(x_i - max x) / sum_j exp(x_j - max x)

const LOWEST = -0x1.fffffep+127f; // f32::MIN

@compute @workgroup_size(LANES)
fn softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let x_at = row * params.x_row;
    let m = max_over_lanes(lane, own_max(x_at, lane));
    let l = sum_over_lanes(lane, own_sum(x_at, lane, m));
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        store_out(row * params.out_row + c, count, exps(load_x(x_at + c, count), m) / l);
    }
}

fn own_max(x_at: u32, lane: u32) -> f32 {
    var m = vec4(LOWEST);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        m = max(m, select(vec4(LOWEST), load_x(x_at + c, count), inside(count)));
    }
    return max(max(m.x, m.y), max(m.z, m.w));
}

fn own_sum(x_at: u32, lane: u32, m: f32) -> f32 {
    var l = vec4(0.0);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        l += select(vec4(0.0), exps(load_x(x_at + c, count), m), inside(count));
    }
    return sum4(l);
}

// exp(x - m); below e^-87 it would be subnormal, and is 0.
fn exps(x: vec4<f32>, m: f32) -> vec4<f32> {
    let d = x - m;
    return select(vec4(0.0), exp(max(d, vec4(-87.0))), d >= vec4(-87.0));
}
