// Gradients of a norm by its input, one workgroup per row: with z the normalised row, s its factor 1 / sqrt(variance + eps) and
// g = dout weight,
//
//     layer norm:   dx = s (g - mean g - z mean (g z))
//     RMS norm:     dx = s (g - z mean (g z))
//
// and a record of the row, from which the gradient of the weight is summed (column_sums.wgsl).

@group(0) @binding(BINDING_records) var<storage, read_write> records: array<vec4<f32>>;  // [rows]

@compute @workgroup_size(LANES)
fn norm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let row = params.first_work + group.y * groups.x + group.x;
    if (row >= params.end_work) { return; }
    let view = view_of(row * params.x_row, lane);
    if (is_none(view)) {
        let nan = nan_of(view.most);
        if (lane == 0u) { records[row] = vec4(1.0, 0.0, 0.0, nan); }
        for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
            store_out(row * params.out_row + c, params.width - c, vec4(nan));
        }
        return;
    }
    let record = vec4(view.scale, view.mean, view.rest, inverseSqrt(view.variance));
    if (lane == 0u) { records[row] = record; }
    let own = own_sums(row, lane, record);
    var mean_g = 0.0;
    if (CENTERED) { mean_g = sum_over_lanes(lane, own.g) / f32(params.width); }
    let mean_gz = sum_over_lanes(lane, own.gz) / f32(params.width);
    let factor = record.w * record.x; // of what is not scaled
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        let z = normalised(record, load_x(row * params.x_row + c, count));
        var dx = (gradient(row, c, count) - mean_g - z * mean_gz) * factor;
        let at = row * params.out_row + c;
        if (INTO) { dx += load_out(at, count); }
        store_out(at, count, dx);
    }
}

// The gradient by the normalised row.
fn gradient(row: u32, c: u32, count: u32) -> vec4<f32> {
    return load_dout(row * params.other_row + c, count) * load_weight(c, count);
}

// The lane's shares of the sums of g and of g z.
struct Sums { g: f32, gz: f32 }

fn own_sums(row: u32, lane: u32, record: vec4<f32>) -> Sums {
    var sum_g = vec4(0.0);
    var sum_gz = vec4(0.0);
    for (var first = 4u * lane; first < params.width; first += BLOCK) {
        var part_g = vec4(0.0);
        var part_gz = vec4(0.0);
        for (var c = first; c < min(first + BLOCK, params.width); c += 4u * LANES) {
            let count = params.width - c;
            let g = gradient(row, c, count); // what lies past the row is 0
            let z = normalised(record, load_x(row * params.x_row + c, count));
            part_g += g;
            part_gz = fma(g, z, part_gz);
        }
        sum_g += part_g;
        sum_gz += part_gz;
    }
    return Sums(sum4(sum_g), sum4(sum_gz));
}
