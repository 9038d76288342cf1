// d relative_rows: d r = scale sum ds_ij (q_i + w).

const VECTOR_GROUPS = HEAD_GROUPS;

fn vector(at: Head, i: u32, j: u32, g: u32, element: u32) -> vec4<f32> {
    return with_w(load_q(row_at(params.q, at.batch, at.head, i) + 4u * g, HEAD_DIM - 4u * g), at.head, g);
}

fn vector_place(element: u32, head: u32, g: u32) -> u32 { return element + 4u * g; }
