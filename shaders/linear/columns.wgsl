// The two ways in which gradients of a softmax over keys meet sums over all keys, one lane per key, 4 features at a time, z_f what linear/scan.wgsl
// left of all: shares phi / z in place (linear/shares.wgsl), and with z_f = sum_j p_jf the gradient p - phi z (linear/softmax_back.wgsl).

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, 64 keys)
    end_work: u32,
    tiles: u32,             // tiles of 64 keys per head
    heads: u32,             // Hkv
    len: u32,               // Lk
    groups: u32,            // of 4 features
    chunks: u32,            // per head
    value_groups: u32,      // of a row of a state, but for its sum
}

@group(0) @binding(BINDING_phi) var<storage, read_write> phi: array<vec4<f32>>;        // [B, Hkv, Lk, groups]
@group(0) @binding(BINDING_states) var<storage, read> states: array<vec4<f32>>;        // [B, Hkv, chunks, 4 groups, value_groups + 1]

@compute @workgroup_size(64)
fn linear_columns(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let line = work / params.kernel.tiles;
    let place = work % params.kernel.tiles * 64u + lane;
    let key = min(place, params.kernel.len - 1u); // lanes past the end load what is there
    for (var g = 0u; g < params.kernel.groups; g++) {
        let z = vec4(sum_of(line, 4u * g), sum_of(line, 4u * g + 1u), sum_of(line, 4u * g + 2u), sum_of(line, 4u * g + 3u));
        let at = (line * params.kernel.len + key) * params.kernel.groups + g;
        let value = changed(at, phi[at], z);
        if (place < params.kernel.len) { leave(line, key, g, at, value); }
    }
}

// Of all keys: the state of the first chunk.
fn sum_of(line: u32, f: u32) -> f32 {
    let row = line * params.kernel.chunks * 4u * params.kernel.groups + f;
    return states[row * (params.kernel.value_groups + 1u) + params.kernel.value_groups].x;
}
