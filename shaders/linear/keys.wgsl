// The second step of maps that look at all keys: phi from y and the largest y, in place, one lane per key. BY_FEATURE: each feature has a
// largest y of its own; else one serves all.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, 64 keys)
    end_work: u32,
    tiles: u32,             // tiles of 64 keys per head
    len: u32,               // Lk
    features: u32,          // m
    feature_eps: f32,
}

@group(0) @binding(BINDING_phi) var<storage, read_write> phi: array<vec4<f32>>;    // [B, Hkv, Lk, m rounded up to 4]
@group(0) @binding(BINDING_maxima) var<storage, read> maxima: array<vec4<f32>>;    // [B, Hkv, m rounded up to 4]
@group(0) @binding(BINDING_weights) var<storage, read_write> weights: array<f32>;  // [B, Hkv, Lk]: |x|^2 / (2 sqrt d), then 0; DROPPED stays

const DROPPED = -0x1.fffffep+127f;

@compute @workgroup_size(64)
fn linear_keys(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let line = work / params.kernel.tiles;
    let place = work % params.kernel.tiles * 64u + lane;
    let row = line * params.kernel.len + min(place, params.kernel.len - 1u);
    let feature_groups = (params.kernel.features + 3u) / 4u;
    let half = weights[row];
    let hidden = half == DROPPED;

    var top = DROPPED;
    for (var g = 0u; g < feature_groups; g++) {
        let y = maxima[line * feature_groups + g];
        top = max(top, max(max(y.x, y.y), max(y.z, y.w)));
    }
    for (var g = 0u; g < feature_groups; g++) {
        let there = vec4(0u, 1u, 2u, 3u) < vec4(params.kernel.features - 4u * g);
        let largest = select(vec4(top), maxima[line * feature_groups + g], vec4(BY_FEATURE));
        let y = select(vec4(0.0), mapped(phi[row * feature_groups + g], largest, half), there & vec4(!hidden));
        if (place < params.kernel.len) { phi[row * feature_groups + g] = y; }
    }
    if (place < params.kernel.len) { weights[row] = select(0.0, DROPPED, hidden); }
}
