// The end of a plan of several parts or splits: merges the splits, writes lse from (m, l), (m, l) itself, and the rows in the output's
// element type. One lane per group of 4 columns of a row.
//
//     m = max_s m_s    w_s = l_s e^(m_s - m)    l = sum_s w_s    o = sum_s w_s o_s / l    lse = m + ln(l)
//
// m is in the base of the scores, as attention.wgsl leaves it; o_s are normalised. `merged_group` and `write_group` are a
// provider's: merge/rows.wgsl, or merge/none.wgsl where f32 rows of parts are in place already; so is `write_total`: merge/total.wgsl, or
// merge/no_total.wgsl where (m, l) is not wanted or in place already. `nth_row` is one, too: heads/all_rows.wgsl, or
// heads/chosen_rows.wgsl where some heads are computed.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // B H Lq
    splits: u32,
    heads: u32,             // H
    q_len: u32,             // Lq
    computed: u32,          // B Lq, times the heads that are computed
    heads_at: u32,          // where those are listed, if they are not all
}

@group(0) @binding(BINDING_state) var<storage, read> state: array<vec2<f32>>;   // (m, l) [splits, B, H, Lq]

const DROPPED = -0x1.fffffep+127f; // of a row without keys

// As lib/merge.wgsl has it, for stats/.
struct RowEnd { inside: bool, stat: u32, m: f32, l: f32 }

@compute @workgroup_size(64)
fn merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let item = work * 64u + lane;
    if (item / VALUE_GROUPS >= params.kernel.computed) { return; }
    let row = nth_row(item / VALUE_GROUPS);
    let column_group = item % VALUE_GROUPS;
    let group_at = row * VALUE_GROUPS + column_group;

    var m = DROPPED;
    for (var s = 0u; s < params.kernel.splits; s++) { m = max(m, state[s * params.kernel.rows + row].x); }
    var l = 0.0;
    var o = vec4(0.0);
    for (var s = 0u; s < params.kernel.splits; s++) {
        let split = state[s * params.kernel.rows + row];
        let w = split.y * shrink(split.x, m);
        l += w;
        o = fma(vec4(w), merged_group(s * params.kernel.rows * VALUE_GROUPS + group_at), o);
    }
    write_stats(RowEnd(column_group == 0u, row, m, l));
    write_total(RowEnd(column_group == 0u, row, m, l));
    // One split's row is as it is: o l / l may round.
    if (params.kernel.splits == 1u) { o = merged_group(group_at); } else { o *= select(1.0 / l, 0.0, is_zero(l)); }
    write_group(row, column_group, o);
}
