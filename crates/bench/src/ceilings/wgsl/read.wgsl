// A buffer, summed up modulo 2^32: each lane writes one word for 128 that it reads.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>; // [lanes]

const LANES = 256u;
const EACH = 32u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * LANES * EACH + lane;
    var sum = vec4(0u);
    for (var n = 0u; n < EACH; n++) {
        sum += words[first + n * LANES];
    }
    sums[group.x * LANES + lane] = sum.x + sum.y + sum.z + sum.w;
}
