// d sinks. A sink has a weight and no value, so of each row of its head
//
//     d sinks_h = - sum over i of p D_i,     p = exp(sinks_h - m_i) / l_i
//
// One lane per copy and head: a copy has every copies-th row of the batch items. sums.wgsl adds up the copies.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    heads: u32,             // H
    copies: u32,
    rows: u32,              // B Lq
    q_len: u32,             // Lq
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_records) var<storage, read> records: array<vec4<f32>>;       // [B, H, Lq]: see records.wgsl
@group(0) @binding(BINDING_sinks) var<storage, read> sinks: array<f32>;                 // [H]
@group(0) @binding(BINDING_sums) var<storage, read_write> sums: array<f32>;             // [copies, H]

@compute @workgroup_size(64)
fn add_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let n = work * 64u + lane;
    if (work >= params.end_work || n >= params.copies * params.heads) { return; }
    let head = n % params.heads;
    let sink = sinks[head];
    var sum = 0.0;
    for (var row = n / params.heads; row < params.rows; row += params.copies) {
        let record = records[(row / params.q_len * params.heads + head) * params.q_len + row % params.q_len];
        let p = weight(vec4(sink), record.x, record.y).x + record.w;
        // A row without keys has D = 0, whatever is in its dout.
        sum -= select(p * record.z, 0.0, (bitcast<u32>(record.z) & 0x7fffffffu) == 0u);
    }
    // Minus infinity is no sink.
    sums[n] = select(sum, 0.0, bitcast<u32>(sink) == 0xff800000u);
}
