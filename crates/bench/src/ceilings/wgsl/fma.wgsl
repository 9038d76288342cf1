// Fused multiply-add, and nothing else: x <- factor x + term, eight independent chains a lane.
//
// Before this text stand `alias real` (f32 or f16) and `ROUNDS`. factor = 1; the terms add up to 1 a round, so that a chain ends
// exactly at its start + ROUNDS: no step can be left out unnoticed. Nobody but the host knows the factor and the terms, so
// that no step can be computed beforehand.

@group(0) @binding(0) var<uniform> given: vec4<f32>; // factor, up, down = -up, last = 1 - up
@group(0) @binding(1) var<storage, read_write> ends: array<f32>; // [lanes]: the sum of a lane's chains

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = vec4(real(given.x));
    let up = vec4(real(given.y));
    let down = vec4(real(given.z));
    let last = vec4(real(given.w));
    var x = vec4(real(id.x % 256u)) + vec4<real>(0.0, 1.0, 2.0, 3.0);
    var y = x + vec4(real(4.0));
    for (var round = 0u; round < ROUNDS; round++) {
        x = four(four(four(x, factor, up, down), factor, up, down), factor, up, down);
        y = four(four(four(y, factor, up, down), factor, up, down), factor, up, down);
        x = four(four(four(x, factor, up, down), factor, up, down), factor, up, down);
        y = four(four(four(y, factor, up, down), factor, up, down), factor, up, down);
        x = four(four(four(x, factor, up, down), factor, up, down), factor, up, down);
        y = four(four(four(y, factor, up, down), factor, up, down), factor, up, down);
        x = four(four(four(x, factor, up, down), factor, up, down), factor, up, down);
        y = four(four(four(y, factor, up, down), factor, up, down), factor, up, down);
        x = four(four(four(x, factor, up, down), factor, up, down), factor, up, down);
        y = four(four(four(y, factor, up, down), factor, up, down), factor, up, down);
        x = fma(fma(fma(fma(x, factor, up), factor, down), factor, up), factor, last);
        y = fma(fma(fma(fma(y, factor, up), factor, down), factor, up), factor, last);
    }
    let ones = vec4(1.0);
    ends[id.x] = dot(vec4<f32>(x), ones) + dot(vec4<f32>(y), ones);
}

fn four(x: vec4<real>, factor: vec4<real>, up: vec4<real>, down: vec4<real>) -> vec4<real> {
    return fma(fma(fma(fma(x, factor, up), factor, down), factor, up), factor, down);
}
