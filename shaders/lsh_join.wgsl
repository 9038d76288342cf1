// The gradient by the shared queries and keys of LSH attention: what a position got as a query, and what it got as a key, through the norm.
//
//     dqk = dq + g - u (u . g),   u = n x,   n = 1 / sqrt(|x|^2 + eps),   g = n (gradient by the key n x)
//
// for d (n x) / dx = n - n^3 x x^T. One lane per position.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // B H L
    heads: u32,             // H
    len: u32,               // L
}

// Where the rows of a tensor [batch, head, row, element] lie, in elements.
struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_norms) var<storage, read> norms: array<f32>;                     // n [B, H, L]
@group(0) @binding(BINDING_as_query) var<storage, read> as_query: array<vec4<f32>>;         // dq [B, H, L, HEAD_GROUPS]
@group(0) @binding(BINDING_as_key) var<storage, read> as_key: array<vec4<f32>>;             // g, likewise

@compute @workgroup_size(64)
fn lsh_join(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    let row = work * 64u + lane;
    if (work >= params.kernel.end_work || row >= params.kernel.rows) { return; }
    let i = row % params.kernel.len;
    let head = row / params.kernel.len % params.kernel.heads;
    let batch = row / params.kernel.len / params.kernel.heads;
    let x_at = start(params.q, batch, head, i);
    let to = start(params.dqk, batch, head, i);
    let norm = norms[row];

    var along = 0.0; // u . g
    var key_bits = 0u;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let key = as_key[row * HEAD_GROUPS + g];
        let u = norm * load_q(x_at + 4u * g, HEAD_DIM - 4u * g);
        let bits = bitcast<vec4<u32>>(key);
        key_bits |= bits.x | bits.y | bits.z | bits.w;
        along = fma(u.w, key.w, fma(u.z, key.z, fma(u.y, key.y, fma(u.x, key.x, along))));
    }
    // Of a key that no query sees nothing matters, be it no number.
    let unseen = (key_bits & 0x7fffffffu) == 0u;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let count = HEAD_DIM - 4u * g;
        let u = norm * load_q(x_at + 4u * g, count);
        let key = as_key[row * HEAD_GROUPS + g] - along * u;
        store_dqk(to + 4u * g, count, as_query[row * HEAD_GROUPS + g] + select(key, vec4(0.0), unseen));
    }
}

fn start(rows: Rows, batch: u32, head: u32, row: u32) -> u32 {
    return rows.offset + batch * rows.batch + head * rows.head + row * rows.row;
}
