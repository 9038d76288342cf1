// FAVOR+ has e^(-|x|^2 / (2 sqrt d)) in every feature.
fn with_length(dx: vec4<f32>, total: f32, batch: u32, head: u32, row: u32, c: u32) -> vec4<f32> {
    let x = load_x(params.x.offset + batch * params.x.batch + head * params.x.head + row * params.x.row + 4u * c, HEAD_DIM - 4u * c);
    return fma(x, vec4(-params.kernel.half_scale * total), dx);
}
