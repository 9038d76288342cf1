// Rotary position embedding (Su 2021), one lane 4 elements of a row; pairs (a, b) of a row at position t turn:
//
//     (a, b)  ->  (a cos - b sin,  b cos + a sin)        INVERSE: (a cos + b sin,  b cos - a sin)
//
// Elements from ROTARY_DIM on are copied. cos and sin come from tables: WGSL promises its own to 2^-11 at most.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // B H L
    heads: u32,
    len: u32,
    head_dim: u32,          // d
    rotary_dim: u32,        // r
    x_at: u32, x_batch: u32, x_head: u32, x_row: u32,           // first element, and strides
    table_batch: u32,
    out_at: u32, out_batch: u32, out_head: u32, out_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_cosines) var<storage, read> cosines: array<f32>;           // [B or 1, L, r/2]
@group(0) @binding(BINDING_sines) var<storage, read> sines: array<f32>;             // [B or 1, L, r/2]

@compute @workgroup_size(64)
fn rotary(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let row_groups = (params.head_dim + 3u) / 4u;
    let item = work * 64u + lane;
    let row = item / row_groups;
    if (work >= params.end_work || row >= params.rows) { return; }
    let t = row % params.len;
    let head = row / params.len % params.heads;
    let batch = row / params.len / params.heads;
    let x_at = params.x_at + batch * params.x_batch + head * params.x_head + t * params.x_row;
    let table_at = batch * params.table_batch + t * (params.rotary_dim / 2u);
    let c = item % row_groups * 4u;
    let count = params.head_dim - c;
    let y = vec4(turned(x_at, table_at, c, params.head_dim, params.rotary_dim),
                 turned(x_at, table_at, c + 1u, params.head_dim, params.rotary_dim),
                 turned(x_at, table_at, c + 2u, params.head_dim, params.rotary_dim),
                 turned(x_at, table_at, c + 3u, params.head_dim, params.rotary_dim));
    store_out(params.out_at + batch * params.out_batch + head * params.out_head + t * params.out_row + c, count, y);
}
