// Scales, and zero points, from the extremes of a slice's parts: a slice per lane.

@group(0) @binding(BINDING_extremes) var<storage, read> extremes: array<vec2<u32>>;
@group(0) @binding(BINDING_scales) var<storage, read_write> scales: array<f32>;

const LANES = 64u;

@compute @workgroup_size(LANES)
fn quantize_scales(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let slice = work * LANES + lane;
    if (slice >= params.slices) { return; }
    var least = 0xffffffffu;
    var most = 0u;
    for (var part = 0u; part < params.parts; part++) {
        let of_part = extremes[slice * params.parts + part];
        least = min(least, of_part.x);
        most = max(most, of_part.y);
    }
    // A NaN or an infinity shows in all that its scale is of.
    let strange = least < LEAST || most > MOST;
    let scale = scale_of(slice, number_of(clamp(least, LEAST, MOST)), number_of(clamp(most, LEAST, MOST)));
    scales[slice] = select(scale, nan_of(most), strange);
}
