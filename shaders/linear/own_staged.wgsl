// What a lane keeps for itself, in its own places of workgroup memory: GPUs' compilers put indexed arrays where it is far, OpenGL's make ladders
// of branches of them. All of WebGPU's 16 KiB; flags come before there are weights.
var<workgroup> own: array<vec4<f32>, 2u * KEY_GROUPS * LANES>;

fn keep(g: u32, a: vec4<f32>, b: vec4<f32>) {
    own[2u * g * LANES + own_lane] = a;
    own[(2u * g + 1u) * LANES + own_lane] = b;
}
fn kept_a(g: u32) -> vec4<f32> { return own[2u * g * LANES + own_lane]; }
fn kept_b(g: u32) -> vec4<f32> { return own[(2u * g + 1u) * LANES + own_lane]; }

fn any_lane(lane: u32, flag: bool) -> bool {
    own[lane] = vec4(f32(flag));
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { own[lane] += own[lane + step]; }
    }
    return workgroupUniformLoad(&own[0]).x != 0.0; // with a barrier on both sides
}
