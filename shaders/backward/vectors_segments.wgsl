// d segments: d e = scale sum ds_ij (q_i + s) over the pairs that read it, d s = scale sum ds_ij e. Groups of e come before those of s; the
// segments themselves get nothing.

const VECTOR_GROUPS = 2u * HEAD_GROUPS;

fn vector(at: Head, i: u32, j: u32, g: u32, element: u32) -> vec4<f32> {
    let from_g = 4u * (g % HEAD_GROUPS);
    let count = HEAD_DIM - from_g;
    let q = load_q(row_at(params.q, at.batch, at.head, i) + from_g, count);
    let with_s = q + load_segments(segment_rows(0u, at.head) + from_g, count);
    return select(with_s, load_segments(element + from_g, count), g >= HEAD_GROUPS);
}

fn vector_place(element: u32, head: u32, g: u32) -> u32 {
    return select(element, segment_rows(0u, head), g >= HEAD_GROUPS) + 4u * (g % HEAD_GROUPS);
}
