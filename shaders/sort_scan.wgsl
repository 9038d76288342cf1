// A pass of a stable radix sort, second step: where each digit of each block goes. One workgroup per segment, a lane a
// digit.
//
//     counts[block, digit] = sum over earlier blocks of counts[block', digit]          in place
//     starts[digit]        = sum over smaller digits and all blocks

struct Params {
    first_work: u32,        // this dispatch computes segments first_work .. end_work
    end_work: u32,
    blocks: u32,            // blocks per segment
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_counts) var<storage, read_write> counts: array<u32>;      // [segments, blocks, 256]
@group(0) @binding(BINDING_starts) var<storage, read_write> starts: array<u32>;      // [segments, 256]

var<workgroup> sums: array<u32, 256>;

@compute @workgroup_size(256)
fn sort_scan(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let segment = params.first_work + group.y * groups.x + group.x;
    if (segment >= params.end_work) { return; }

    var total = 0u;
    for (var block = 0u; block < params.blocks; block++) {
        let at = (segment * params.blocks + block) * 256u + lane;
        let count = counts[at];
        counts[at] = total;
        total += count;
    }

    // Inclusive sums over the digits, by doubling (Hillis & Steele 1986).
    sums[lane] = total;
    workgroupBarrier();
    for (var step = 1u; step < 256u; step *= 2u) {
        let before = select(0u, sums[max(lane, step) - step], lane >= step);
        workgroupBarrier();
        sums[lane] += before;
        workgroupBarrier();
    }
    starts[segment * 256u + lane] = sums[lane] - total;
}
