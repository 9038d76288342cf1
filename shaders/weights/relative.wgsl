// Relative rows: k meets q + u, and r meets q + w (score/relative.wgsl).

fn content(head: u32, g: u32) -> vec4<f32> { return with_u(query(g), head, g); }

fn related(at: Head, pairs: Pairs, products: vec4<f32>) -> vec4<f32> {
    let rows = related_rows(at.batch, at.head, pairs.distance);
    var s = products;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q = with_w(query(g), at.head, g) * params.kernel.q_scale;
        let r = rows + vec4(4u * g);
        let count = HEAD_DIM - 4u * g;
        s = vec4(relative_dot(q, load_relative_rows(r.x, count), s.x), relative_dot(q, load_relative_rows(r.y, count), s.y),
                 relative_dot(q, load_relative_rows(r.z, count), s.z), relative_dot(q, load_relative_rows(r.w, count), s.w));
    }
    return s;
}
