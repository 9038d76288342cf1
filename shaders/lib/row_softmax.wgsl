// A row's maximum and its exponentials, for kernels that have `params.width` and `load_x`.

const LOWEST = -0x1.fffffep+127f; // f32::MIN

// The lane's share of the row's maximum.
fn own_max(x_at: u32, lane: u32) -> f32 {
    var m = vec4(LOWEST);
    for (var c = 4u * lane; c < params.width; c += 4u * LANES) {
        let count = params.width - c;
        m = max(m, select(vec4(LOWEST), load_x(x_at + c, count), inside(count)));
    }
    return max(max(m.x, m.y), max(m.z, m.w));
}

// exp(d); below e^-87 it would be subnormal, and is 0.
fn exps(d: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), exp(max(d, vec4(-87.0))), d >= vec4(-87.0));
}
