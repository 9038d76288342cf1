// What a chunk of keys comes to, for each feature f:
//
//     S_f = sum_j w_j phi_f(k_j) v_j        z_f = sum_j w_j phi_f(k_j)        w_j = 1, or e^(log weight - top), top the largest of the chunk
//
// A workgroup is 64 features by 16 columns of one chunk, a lane per feature. Then linear/scan.wgsl.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, chunk, features, columns)
    end_work: u32,
    kv_heads: u32,          // Hkv
    kv_len: u32,            // Lk
    chunks: u32,            // per head
    groups: u32,            // of 4 features
    feature_tiles: u32,     // tiles of 64 features
    column_tiles: u32,      // tiles of 16 columns
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_k_phi) var<storage, read> k_phi: array<f32>;                // [B, Hkv, Lk, 4 groups]
@group(0) @binding(BINDING_states) var<storage, read_write> states: array<vec4<f32>>;  // [B, Hkv, chunks, 4 groups, VALUE_GROUPS + 1]

@compute @workgroup_size(64)
fn linear_states(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let column_tile = work % params.kernel.column_tiles;
    let feature_tile = work / params.kernel.column_tiles % params.kernel.feature_tiles;
    let of_chunk = work / params.kernel.column_tiles / params.kernel.feature_tiles;
    let chunk = of_chunk % params.kernel.chunks;
    let line = of_chunk / params.kernel.chunks;
    let kv_head = line % params.kernel.kv_heads;
    let width = 4u * params.kernel.groups;
    let f = min(feature_tile * 64u + lane, width - 1u);
    let first = chunk * CHUNK;
    let end = min(first + CHUNK, params.kernel.kv_len);
    let v_at = params.v.offset + line / params.kernel.kv_heads * params.v.batch + kv_head * params.v.head;
    let c = vec4(4u * column_tile) + vec4(0u, 1u, 2u, 3u);
    let column = 4u * min(c, vec4(VALUE_GROUPS - 1u)); // past the last group it is that one again

    let top = top_of_keys(line * params.kernel.kv_len, kv_head, first, end);
    var s = mat4x4<f32>();
    var z = 0.0;
    for (var j = first; j < end; j++) {
        let place = placed(j, params.kernel.kv_len);
        let key = line * params.kernel.kv_len + place;
        let log = log_weight_of(key, kv_head, end - 1u - j);
        let x = k_phi[key * width + f] * weight(log, top);
        let at = v_at + place * params.v.row;
        var v = mat4x4(load_v(at + column.x, VALUE_DIM - column.x), load_v(at + column.y, VALUE_DIM - column.y),
                       load_v(at + column.z, VALUE_DIM - column.z), load_v(at + column.w, VALUE_DIM - column.w));
        if (WEIGHTED) { v = seen(v, log); }
        s = mat4x4(fma(vec4(x), v[0], s[0]), fma(vec4(x), v[1], s[1]), fma(vec4(x), v[2], s[2]), fma(vec4(x), v[3], s[3]));
        z += x;
    }
    if (feature_tile * 64u + lane >= width) { return; }
    let to = (of_chunk * width + f) * (VALUE_GROUPS + 1u);
    if (c.x < VALUE_GROUPS) { states[to + c.x] = s[0]; }
    if (c.y < VALUE_GROUPS) { states[to + c.y] = s[1]; }
    if (c.z < VALUE_GROUPS) { states[to + c.z] = s[2]; }
    if (c.w < VALUE_GROUPS) { states[to + c.w] = s[3]; }
    if (column_tile == 0u) {
        states[to + VALUE_GROUPS] = vec4(z, 0.0, 0.0, 0.0);
        if (f == 0u) { leave_top(of_chunk, top); }
        // Of the first chunk: the scan, which leaves another state, does not read it there.
        if (CARRIED && f == 0u && chunk == 0u) { leave_top_before(of_chunk, top_before(line, width * (VALUE_GROUPS + 1u))); }
    }
}

// The values of a key that no query sees may be anything.
fn seen(v: mat4x4<f32>, log: f32) -> mat4x4<f32> {
    let hidden = vec4(log == DROPPED);
    return mat4x4(select(v[0], vec4(0.0), hidden), select(v[1], vec4(0.0), hidden), select(v[2], vec4(0.0), hidden),
                  select(v[3], vec4(0.0), hidden));
}
