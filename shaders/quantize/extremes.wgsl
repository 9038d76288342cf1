// The extremes of parts of slices that share a scale, a part per lane. What is loaded behind a part's end is 0, which every rule
// counts anyway.

@group(0) @binding(BINDING_extremes) var<storage, read_write> extremes: array<vec2<u32>>; // ordered bits of the least and the most

const LANES = 64u;

@compute @workgroup_size(LANES)
fn quantize_extremes(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let n = work * LANES + lane;
    if (n >= params.slices * params.parts) { return; }
    let first = n % params.parts * params.part_len;
    let end = min(first + params.part_len, params.slice_len);
    let slice_at = n / params.parts * params.slice_len;
    var least = vec4(0xffffffffu);
    var most = vec4(0u);
    for (var k = first; k < end; k += 4u) {
        let keys = ordered(bitcast<vec4<u32>>(load_x(slice_at + k, end - k)));
        least = min(least, keys);
        most = max(most, keys);
    }
    extremes[n] = vec2(min(min(least.x, least.y), min(least.z, least.w)), max(max(most.x, most.y), max(most.z, most.w)));
}
