// Normalisation of rows, one workgroup per row:
//
//     layer norm (Ba 2016):     y = (x - mean x) / sqrt(mean (x - mean x)^2 + eps) weight + bias
//     RMS norm (Zhang 2019):    y = x / sqrt(mean x^2 + eps) weight + bias
//
// The variance is a pass of its own over x - mean: E[x^2] - mean^2 would cancel. Most rows need no more. Those that do are
// found by their variance and gone over `carefully`: squares that leave f32, a mean far above the spread, NaN and infinity.

@compute @workgroup_size(LANES)
fn norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let x_at = row * params.x_row;
    let view = view_of(x_at, lane);
    if (is_none(view)) {
        let nan = vec4(nan_of(view.most));
        for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
            store_out(row * params.out_row + c, params.width - c, nan);
        }
        return;
    }
    let factor = inverseSqrt(view.variance);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        var y = seen(view, load_x(x_at + c, count)) * factor * load_weight(c, count);
        if (HAS_BIAS) { y += load_bias(c, count); }
        store_out(row * params.out_row + c, count, y);
    }
}
