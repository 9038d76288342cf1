// The end of a plan of several parts: writes lse from the merged (m, l), and narrows the merged f32 rows to the
// output's element type. One lane a group of 4 columns of a row.
//
//     lse = ln(2) (m + log2(l))          m in base 2, as attention.wgsl leaves it

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // B H Lq
    heads: u32,             // H
    q_len: u32,             // Lq
    out_batch: u32, out_head: u32, out_row: u32,    // strides in elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<f32>;             // (m, l) [B, H, Lq, 2]
@group(0) @binding(2) var<storage, read> merged: array<vec4<f32>>;      // [B, H, Lq, 4 VALUE_GROUPS]; unused without NARROW
@group(0) @binding(3) var<storage, read_write> out: array<out_word>;    // [B, H, Lq, dv]; unused without NARROW
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;         // [B, H, Lq]; unused without WRITE_LSE

const DROPPED = -0x1.fffffep+127f; // lse of an empty row

@compute @workgroup_size(64)
fn finish(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let item = work * 64u + lane;
    let row = item / VALUE_GROUPS;
    let column_group = item % VALUE_GROUPS;
    if (row >= params.rows) { return; }
    if (WRITE_LSE && column_group == 0u) {
        let m = state[2u * row];
        let l = state[2u * row + 1u];
        lse[row] = select(DROPPED, (m + log2(l)) * 0.6931471805599453, l > 0.0);
    }
    if (NARROW) {
        let i = row % params.q_len;
        let head = row / params.q_len % params.heads;
        let batch = row / params.q_len / params.heads;
        let out_at = batch * params.out_batch + head * params.out_head + i * params.out_row;
        store_out(out_at, column_group, merged[item]);
    }
}
