// d relative_biases: d u = scale sum ds_ij k_j, d w = scale sum ds_ij r. Groups of u come before those of w.

const VECTOR_GROUPS = select(HEAD_GROUPS, 2u * HEAD_GROUPS, RELATIVE_U && RELATIVE_W);

fn is_of_u(g: u32) -> bool { return RELATIVE_U && g < HEAD_GROUPS; }

fn vector(at: Head, i: u32, j: u32, g: u32, element: u32) -> vec4<f32> {
    let from_g = 4u * (g % HEAD_GROUPS);
    let count = HEAD_DIM - from_g;
    let r = related_rows(at.batch, at.head, distances(vec4(i), vec4(j))).x;
    return select(load_relative_rows(r + from_g, count), load_k(at.k_at + j * params.k.row + from_g, count), is_of_u(g));
}

fn vector_place(element: u32, head: u32, g: u32) -> u32 {
    return element + select(params.relative.w_at, 0u, is_of_u(g)) + 4u * (g % HEAD_GROUPS);
}
