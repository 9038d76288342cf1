// y = scale P x: the products of x with rows 4 g .. 4 g + 3 of P [m, d]. Past the last row it is that row again.
fn logs(g: u32) -> vec4<f32> {
    let last = params.kernel.features - 1u;
    let at = HEAD_DIM * min(vec4(4u * g) + vec4(0u, 1u, 2u, 3u), vec4(last));
    var y = vec4(0.0);
    for (var c = 0u; c < HEAD_GROUPS; c++) {
        let count = HEAD_DIM - 4u * c;
        let x = own_x[c];
        let p = transpose(mat4x4(load_projection(at.x + 4u * c, count), load_projection(at.y + 4u * c, count),
                                 load_projection(at.z + 4u * c, count), load_projection(at.w + 4u * c, count)));
        y = fma(p[3], vec4(x.w), fma(p[2], vec4(x.z), fma(p[1], vec4(x.y), fma(p[0], vec4(x.x), y))));
    }
    return y * params.kernel.scale;
}
