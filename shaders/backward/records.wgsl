// What the backward pass keeps of a query, one lane per row: its maximum m, 1 / l (0 without keys), D = do . o / l, and a mark that
// is 0, or NaN where anything of the row is not finite: whoever attends the row then says so. Where o is 0, D is, whatever do is. Rows of
// heads that are not computed (heads/) have no record: nothing reads it but the sum over rows of sinks, which finds the zeros of new scratch.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    rows: u32,              // B H Lq
    heads: u32,             // H
    q_len: u32,             // Lq
    behind: u32,            // elements that are copied behind the records: u and w, or the norms of LSH attention
    computed: u32,          // B Lq, times the heads that are computed
    heads_at: u32,          // where those are listed, if they are not all
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_state) var<storage, read> state: array<vec2<f32>>;           // (m, l) [B, H, Lq]
@group(0) @binding(BINDING_records) var<storage, read_write> records: array<vec4<f32>>; // [B, H, Lq], then what lies behind

@compute @workgroup_size(64)
fn record(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let n = work * 64u + lane;
    if (n >= params.kernel.computed) {
        let behind = n - params.kernel.computed;
        let at = 4u * behind;
        if (at < params.kernel.behind) { records[params.kernel.rows + behind] = load_behind(at, params.kernel.behind - at); }
        return;
    }
    let row = nth_row(n);
    let i = row % params.kernel.q_len;
    let head = row / params.kernel.q_len % params.kernel.heads;
    let batch = row / params.kernel.q_len / params.kernel.heads;
    let o_at = start(params.out, batch, head, i);
    let d_at = start(params.dout, batch, head, i);

    var sum = 0.0;
    var o_bits = 0u;
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        let count = VALUE_DIM - 4u * g;
        let o = load_o(o_at + 4u * g, count);
        let d = load_dout(d_at + 4u * g, count);
        let bits = bitcast<vec4<u32>>(o);
        o_bits |= bits.x | bits.y | bits.z | bits.w;
        sum = fma(d.w, o.w, fma(d.z, o.z, fma(d.y, o.y, fma(d.x, o.x, sum))));
    }
    let own = state[row];
    let empty = (bitcast<u32>(own.y) & 0x7fffffffu) == 0u;
    let over_l = select(1.0 / own.y, 0.0, empty);
    let d = sum * over_l;
    let bits = bitcast<vec4<u32>>(vec4(own.x, own.y, over_l, d));
    // Of a row without keys no weight survives, whatever its record holds.
    let strange = any((bits & vec4(0x7f800000u)) == vec4(0x7f800000u));
    // The bits of some NaN, which no constant may hold.
    let mark = bitcast<f32>(select(0u, bits.y | 0x7fc00000u, strange));
    records[row] = vec4(own.x, over_l, select(d, 0.0, (o_bits & 0x7fffffffu) == 0u), mark);
}

fn start(rows: Rows, batch: u32, head: u32, row: u32) -> u32 {
    return rows.offset + batch * rows.batch + head * rows.head + row * rows.row;
}
