// The exponentials of a row.

const LOWEST = -0x1.fffffep+127f; // f32::MIN

// exp(d); below e^-87 it would be subnormal, and is 0.
fn exps(d: vec4<f32>) -> vec4<f32> {
    return select(vec4(0.0), exp(max(d, vec4(-87.0))), d >= vec4(-87.0));
}
