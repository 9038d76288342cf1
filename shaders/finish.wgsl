// The end of a plan of several parts or splits: merges the splits, writes lse from (m, l), and the rows in the output's
// element type. One lane a group of 4 columns of a row.
//
//     m = max_s m_s    w_s = l_s 2^(m_s - m)    l = sum_s w_s    o = sum_s w_s o_s / l    lse = ln(2) (m + log2(l))
//
// m is in base 2, as attention.wgsl leaves it; o_s are normalised.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // B H Lq
    splits: u32,
    heads: u32,             // H
    q_len: u32,             // Lq
    out_batch: u32, out_head: u32, out_row: u32,    // strides in elements
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<f32>;             // (m, l) [splits, B, H, Lq, 2]
@group(0) @binding(2) var<storage, read> merged: array<vec4<f32>>;      // [splits, B, H, Lq, 4 VALUE_GROUPS]; unused without WRITE_ROWS
@group(0) @binding(3) var<storage, read_write> out: array<out_word>;    // [B, H, Lq, dv]; unused without WRITE_ROWS
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

    var m = DROPPED;
    for (var s = 0u; s < params.splits; s++) { m = max(m, state[2u * (s * params.rows + row)]); }
    var l = 0.0;
    var o = vec4(0.0);
    for (var s = 0u; s < params.splits; s++) {
        let split_row = s * params.rows + row;
        let m_s = state[2u * split_row];
        // Exactly 1 for the maximum, whatever exp2(0) is.
        let w = state[2u * split_row + 1u] * select(exp2(max(m_s - m, -200.0)), 1.0, m_s == m);
        l += w;
        if (WRITE_ROWS) { o = fma(vec4(w), merged[s * params.rows * VALUE_GROUPS + item], o); }
    }
    if (WRITE_LSE && column_group == 0u) {
        lse[row] = select(DROPPED, (m + log2(l)) * 0.6931471805599453, l > 0.0);
    }
    if (WRITE_ROWS) {
        let i = row % params.q_len;
        let head = row / params.q_len % params.heads;
        let batch = row / params.q_len / params.heads;
        let out_at = batch * params.out_batch + head * params.out_head + i * params.out_row;
        if (params.splits == 1u) { o = merged[item]; } // as it is: o l / l may round
        else { o *= select(0.0, 1.0 / l, l > 0.0); }
        store_out(out_at, column_group, o);
    }
}
