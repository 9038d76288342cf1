// P^T g: rows 4 f .. 4 f + 3 of P [m, d]. Past the last row g is 0.
fn spread(f: u32, g: vec4<f32>) {
    let at = HEAD_DIM * min(vec4(4u * f) + vec4(0u, 1u, 2u, 3u), vec4(params.kernel.features - 1u));
    for (var c = 0u; c < HEAD_GROUPS; c++) {
        let count = HEAD_DIM - 4u * c;
        let p0 = load_projection(at.x + 4u * c, count);
        let p1 = load_projection(at.y + 4u * c, count);
        let p2 = load_projection(at.z + 4u * c, count);
        let p3 = load_projection(at.w + 4u * c, count);
        own_dx[c] = fma(p3, vec4(g.w), fma(p2, vec4(g.z), fma(p1, vec4(g.y), fma(p0, vec4(g.x), own_dx[c]))));
    }
}
