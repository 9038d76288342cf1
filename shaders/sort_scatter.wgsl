// A pass of a stable radix sort, last step: each key, and its value, goes behind all that come before it.
//
//     place(n) = starts[digit] + counts[block, digit] + |{ n' < n in the block : digit(n') = digit(n) }|
//
// The rank within a tile of 256 keys comes from a set of lanes a digit, 256 bits of workgroup memory: each lane enters
// itself by an atomic or, and counts the bits below its own. Bits commute, so the result has one value.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (segment, block)
    end_work: u32,
    len: u32,               // keys per segment
    blocks: u32,            // blocks per segment
    shift: u32,             // of this pass's digit, in bits
    digit_mask: u32,        // 255, or less where fewer bits of the key count
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_counts) var<storage, read> counts: array<u32>;            // [segments, blocks, 256]: of earlier blocks
@group(0) @binding(BINDING_starts) var<storage, read> starts: array<u32>;            // [segments, 256]
@group(0) @binding(BINDING_keys) var<storage, read> keys: array<u32>;              // [segments, len]
@group(0) @binding(BINDING_values_out) var<storage, read_write> values_out: array<u32>;  // [segments, len]

var<workgroup> members: array<atomic<u32>, 2048>;   // [8 words of 32 lanes, 256 digits]
var<workgroup> next: array<u32, 256>;               // where the next key of a digit goes

@compute @workgroup_size(256)
fn sort_scatter(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let segment = work / params.blocks;
    let block = work % params.blocks;

    next[lane] = starts[segment * 256u + lane] + counts[work * 256u + lane];
    for (var tile = 0u; tile < TILES; tile++) {
        for (var word = 0u; word < 8u; word++) { atomicStore(&members[word * 256u + lane], 0u); }
        workgroupBarrier();
        let n = (block * TILES + tile) * 256u + lane;
        let inside = n < params.len;
        let at = segment * params.len + min(n, params.len - 1u);
        let key = keys[at];
        let digit = (key >> params.shift) & params.digit_mask;
        if (inside) { atomicOr(&members[lane / 32u * 256u + digit], 1u << (lane % 32u)); }
        workgroupBarrier();
        if (inside) {
            let below = (1u << (lane % 32u)) - 1u;
            var rank = countOneBits(atomicLoad(&members[lane / 32u * 256u + digit]) & below);
            for (var word = 0u; word < lane / 32u; word++) { rank += countOneBits(atomicLoad(&members[word * 256u + digit])); }
            let place = segment * params.len + next[digit] + rank;
            values_out[place] = value_of(at, n);
            write_key(place, key);
        }
        workgroupBarrier();
        // From here on each lane touches what is its own digit's alone, until the next barrier.
        for (var word = 0u; word < 8u; word++) { next[lane] += countOneBits(atomicLoad(&members[word * 256u + lane])); }
    }
}
