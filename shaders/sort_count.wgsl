// A pass of a stable radix sort, first step: how often each digit comes in each block of a segment.
//
//     counts[segment, block, digit] = |{ n in block : (keys[segment, n] >> shift) & digit_mask = digit }|
//
// A workgroup is a block of BLOCK keys, TILES tiles of 256. Then sort_scan.wgsl and sort_scatter.wgsl.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (segment, block)
    end_work: u32,
    len: u32,               // keys per segment
    blocks: u32,            // blocks per segment
    shift: u32,             // of this pass's digit, in bits
    digit_mask: u32,        // 255, or less where fewer bits of the key count
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_keys) var<storage, read> keys: array<u32>;              // [segments, len]
@group(0) @binding(BINDING_counts) var<storage, read_write> counts: array<u32>;      // [segments, blocks, 256]

var<workgroup> totals: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn sort_count(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let segment = work / params.blocks;
    let block = work % params.blocks;

    atomicStore(&totals[lane], 0u);
    workgroupBarrier();
    for (var tile = 0u; tile < TILES; tile++) {
        let n = (block * TILES + tile) * 256u + lane;
        if (n < params.len) { atomicAdd(&totals[(keys[segment * params.len + n] >> params.shift) & params.digit_mask], 1u); }
    }
    workgroupBarrier();
    counts[work * 256u + lane] = atomicLoad(&totals[lane]);
}
