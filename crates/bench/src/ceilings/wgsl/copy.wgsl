// One buffer into another.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<u32>>;

const LANES = 256u;
const EACH = 8u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * LANES * EACH + lane;
    for (var n = 0u; n < EACH; n++) {
        copied[first + n * LANES] = words[first + n * LANES];
    }
}
