// Feature rows of queries or of keys, one lane per row: phi(x), with y = P x or x itself (linear/projected.wgsl, linear/plain.wgsl) and the
// map of one of the files linear/favor.wgsl, relu.wgsl, elu.wgsl, identity.wgsl, softmax.wgsl.
//
// MODE says what a map needs to know of a row: nothing but the element (ELEMENTS), its largest y (ROWS), or the largest y of all keys,
// which linear/keys.wgsl then brings (LATER: here y alone is left). A factor of a query's own cancels: a softmax needs no sum here.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, 64 rows)
    end_work: u32,
    tiles: u32,             // tiles of 64 rows per head
    heads: u32,             // of x
    len: u32,               // rows per head
    features: u32,          // m
    scale: f32,             // of P x
    half_scale: f32,        // of |x|^2
    feature_eps: f32,
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_phi) var<storage, read_write> phi: array<vec4<f32>>;    // [B, heads, len, m rounded up to 4]

const DROPPED = -0x1.fffffep+127f;
var<private> own_x: array<vec4<f32>, HEAD_GROUPS>;

@compute @workgroup_size(64)
fn linear_features(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let line = work / params.kernel.tiles;
    let batch = line / params.kernel.heads;
    let place = work % params.kernel.tiles * 64u + lane;
    let row = min(place, params.kernel.len - 1u); // lanes past the end load what is there
    let inside = place < params.kernel.len;
    let x_at = params.x.offset + batch * params.x.batch + line % params.kernel.heads * params.x.head + row * params.x.row;
    var squares = 0.0;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let x = load_x(x_at + 4u * g, HEAD_DIM - 4u * g);
        own_x[g] = x;
        squares = fma(x.w, x.w, fma(x.z, x.z, fma(x.y, x.y, fma(x.x, x.x, squares))));
    }
    let half = params.kernel.half_scale * squares;
    let feature_groups = (params.kernel.features + 3u) / 4u;
    let at = (line * params.kernel.len + row) * feature_groups;
    let hidden = is_hidden(batch * params.kernel.len + row);

    var top = DROPPED;
    for (var g = 0u; g < feature_groups; g++) {
        let there = vec4(0u, 1u, 2u, 3u) < vec4(params.kernel.features - 4u * g);
        var y = select(vec4(DROPPED), logs(g), there);
        top = max(top, max(max(y.x, y.y), max(y.z, y.w)));
        if (MODE == ELEMENTS) { y = select(vec4(0.0), mapped(y, vec4(0.0), half), there & vec4(!hidden)); }
        if (MODE == LATER) { y = select(y, vec4(DROPPED), vec4(hidden)); }
        if (inside) { phi[at + g] = y; }
    }
    if (inside) { leave_weight(line * params.kernel.len + row, select(log_weight(top, half), DROPPED, hidden)); }
    if (MODE != ROWS) { return; }
    for (var g = 0u; g < feature_groups; g++) {
        let there = vec4(0u, 1u, 2u, 3u) < vec4(params.kernel.features - 4u * g);
        let y = select(vec4(0.0), mapped(phi[at + g], vec4(top), half), there & vec4(!hidden));
        if (inside) { phi[at + g] = y; }
    }
}
