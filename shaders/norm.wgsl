// Normalisation of rows, one workgroup a row:
//
//     layer norm (Ba 2016):     y = (x - mean x) / sqrt(mean (x - mean x)^2 + eps) weight + bias
//     RMS norm (Zhang 2019):    y = x / sqrt(mean x^2 + eps) weight + bias
//
// The variance is a pass of its own over x - mean: E[x^2] - mean^2 would cancel.

@compute @workgroup_size(LANES)
fn norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let x_at = row * params.x_row;
    var mean = 0.0;
    if (CENTERED) { mean = sum_over_lanes(lane, own_sum(x_at, lane)) / f32(params.width); }
    let variance = sum_over_lanes(lane, own_squares(x_at, lane, mean)) / f32(params.width);
    let factor = inverseSqrt(variance + params.eps);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        var y = (load_x(x_at + c, count) - mean) * factor * load_weight(c, count);
        if (HAS_BIAS) { y += load_bias(c, count); }
        store_out(row * params.out_row + c, count, y);
    }
}

// The lane's share of sum x.
fn own_sum(x_at: u32, lane: u32) -> f32 {
    var sum = vec4(0.0);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) { sum += load_x(x_at + c, params.width - c); }
    return sum4(sum);
}

// The lane's share of sum (x - mean)^2.
fn own_squares(x_at: u32, lane: u32, mean: f32) -> f32 {
    var sum = vec4(0.0);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        let d = select(vec4(0.0), load_x(x_at + c, count) - mean, inside(count));
        sum = fma(d, d, sum);
    }
    return sum4(sum);
}
