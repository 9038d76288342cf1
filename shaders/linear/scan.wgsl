// The states of chunks, summed up one after the other, in place, one lane per 4 elements: each chunk is left the sum of those before it
// (CAUSAL), or the first is left the sum of all. Two sums meet at the larger of their tops. The sums begin with what earlier calls left, and
// leave theirs to later ones (linear/state.wgsl).

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, 64 lanes)
    end_work: u32,
    tiles: u32,             // of 64 lanes per head
    kv_heads: u32,          // Hkv
    kv_len: u32,            // Lk
    chunks: u32,            // per head
    width: u32,             // groups of 4 elements per state
}

@group(0) @binding(BINDING_states) var<storage, read_write> states: array<vec4<f32>>;  // [B, Hkv, chunks, width]

@compute @workgroup_size(64)
fn linear_scan(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let line = work / params.kernel.tiles;
    let kv_head = line % params.kernel.kv_heads;
    let place = work % params.kernel.tiles * 64u + lane;
    let e = min(place, params.kernel.width - 1u);
    let inside = place < params.kernel.width;

    var total = sums_before(line, params.kernel.width, e);
    var top = DROPPED;
    if (CARRIED) { top = top_before_chunk(line * params.kernel.chunks); } // where linear/states.wgsl left it
    for (var chunk = 0u; chunk < params.kernel.chunks; chunk++) {
        let of_chunk = line * params.kernel.chunks + chunk;
        let own = states[of_chunk * params.kernel.width + e];
        if (CAUSAL && inside) {
            states[of_chunk * params.kernel.width + e] = total;
            if (e == 0u && !(CARRIED && chunk == 0u)) { leave_top_before(of_chunk, top); }
        }
        let own_top = top_of_chunk(of_chunk);
        let aged = older(top, kv_head, min(CHUNK, params.kernel.kv_len - chunk * CHUNK));
        top = max(aged, own_top);
        total = fma(own, vec4(weight(own_top, top)), total * weight(aged, top));
    }
    if (inside) { leave_state(line, params.kernel.width, e, total, top); }
    if (!CAUSAL && inside) {
        states[line * params.kernel.chunks * params.kernel.width + e] = total;
        if (e == 0u) { leave_top_before(line * params.kernel.chunks, top); }
    }
}
