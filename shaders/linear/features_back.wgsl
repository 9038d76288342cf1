// The gradients of queries, keys or values from those of their features, one lane per row:
//
//     dx = P^T g scale - x / sqrt(d) sum_f g_f, of FAVOR+ alone        g = dphi slope(phi) e^(log weight + top), of keys that have weights
//
// or dx = g where features are of x itself (linear/back_projected.wgsl, back_plain.wgsl). A map's slope is a function of its feature.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, 64 rows)
    end_work: u32,
    tiles: u32,             // tiles of 64 rows per head
    heads: u32,             // of x
    len: u32,               // rows per head
    features: u32,          // m
    scale: f32,             // of P^T g
    half_scale: f32,        // of x, twice that of |x|^2
    feature_eps: f32,
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_dphi) var<storage, read> dphi: array<vec4<f32>>;        // [B, heads, len, groups + 1]: sums; (.., .., top, ..)

const DROPPED = -0x1.fffffep+127f;
var<private> own_dx: array<vec4<f32>, HEAD_GROUPS>;

@compute @workgroup_size(64)
fn linear_features_back(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                        @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let line = work / params.kernel.tiles;
    let batch = line / params.kernel.heads;
    let head = line % params.kernel.heads;
    let place = work % params.kernel.tiles * 64u + lane;
    let inside = place < params.kernel.len;
    let in_head = min(place, params.kernel.len - 1u); // lanes past the end load what is there
    let row = line * params.kernel.len + in_head;
    let feature_groups = (params.kernel.features + 3u) / 4u;
    let at = row * (feature_groups + 1u);
    let factor = row_factor(row, dphi[at + feature_groups].z);
    for (var c = 0u; c < HEAD_GROUPS; c++) { own_dx[c] = vec4(0.0); }
    var total = 0.0;
    for (var f = 0u; f < feature_groups; f++) {
        let there = (vec4(0u, 1u, 2u, 3u) < vec4(params.kernel.features - 4u * f)) & vec4(factor != 0.0);
        let g = select(vec4(0.0), dphi[at + f] * slope(phi_of(row * feature_groups + f)) * factor, there);
        total += (g.x + g.y) + (g.z + g.w);
        spread(f, g);
    }
    let dx_at = params.out.offset + batch * params.out.batch + head * params.out.head + in_head * params.out.row;
    for (var c = 0u; c < HEAD_GROUPS; c++) {
        let dx = with_length(own_dx[c] * params.kernel.scale, total, batch, head, in_head, c);
        if (inside) { store_out(dx_at + 4u * c, HEAD_DIM - 4u * c, select(dx, vec4(0.0), vec4(factor == 0.0))); }
    }
}
