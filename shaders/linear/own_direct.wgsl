// What a lane keeps for itself in arrays that loops index: memory, but a CPU's nearest.
var<private> own_a: array<vec4<f32>, KEY_GROUPS>;
var<private> own_b: array<vec4<f32>, KEY_GROUPS>;
var<workgroup> flags: array<u32, LANES>;

fn keep(g: u32, a: vec4<f32>, b: vec4<f32>) {
    own_a[g] = a;
    own_b[g] = b;
}
fn kept_a(g: u32) -> vec4<f32> { return own_a[g]; }
fn kept_b(g: u32) -> vec4<f32> { return own_b[g]; }

fn any_lane(lane: u32, own: bool) -> bool {
    flags[lane] = u32(own);
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) { flags[lane] |= flags[lane + step]; }
    }
    return workgroupUniformLoad(&flags[0]) != 0u;
}
