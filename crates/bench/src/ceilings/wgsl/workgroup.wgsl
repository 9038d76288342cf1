// Workgroup memory, read: neighbouring lanes read neighbouring vec4s, each round from another place.
//
// Before this text stands `ROUNDS`. The memory's content comes from the host, and every word that is read is in the sum.

@group(0) @binding(0) var<uniform> given: vec4<u32>; // factor of the content
@group(0) @binding(1) var<storage, read_write> sums: array<u32>; // [lanes]

const LANES = 256u;
const PLACES = 1024u;
const LAST = PLACES - 1u; // as bits: PLACES is a power of two
var<workgroup> memory: array<vec4<u32>, PLACES>; // 16 KiB: what every device has

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var place = lane; place < PLACES; place += LANES) {
        memory[place] = (vec4(4u * place) + vec4(0u, 1u, 2u, 3u)) * given.x;
    }
    workgroupBarrier();
    var sum = vec4(0u);
    for (var round = 0u; round < ROUNDS; round++) {
        let at = lane + round;
        sum += memory[at & LAST];
        sum += memory[(at + 256u) & LAST];
        sum += memory[(at + 512u) & LAST];
        sum += memory[(at + 768u) & LAST];
    }
    sums[id.x] = sum.x + sum.y + sum.z + sum.w;
}
