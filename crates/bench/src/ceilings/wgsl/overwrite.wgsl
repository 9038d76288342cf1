// Fills a large buffer, so that the caches hold that instead of what was in them.

@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;

const LANES = 256u;
const EACH = 8u;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * LANES * EACH + lane;
    for (var n = 0u; n < EACH; n++) {
        let at = first + n * LANES;
        // Read as well: caches that do not keep what is written keep what is read. And it changes each time.
        words[at] = words[at] * vec4(5u) + vec4(at);
    }
}
