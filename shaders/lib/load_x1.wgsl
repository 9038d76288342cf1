// Rows of any start and length, element by element; what lies past the row's end counts as 0.
// `row` is the element index of the row's start.
alias in_word = in_x1;

fn load_q(row: u32, group: u32) -> vec4<f32> {
    let c = vec4(4u * group) + vec4(0u, 1u, 2u, 3u);
    let e = vec4(row) + min(c, vec4(HEAD_DIM - 1u));
    let w = e / vec4(ELEMENTS_IN_X1);
    let x = vec4(widen_x1(q[w.x], e.x), widen_x1(q[w.y], e.y), widen_x1(q[w.z], e.z), widen_x1(q[w.w], e.w));
    return select(vec4(0.0), x, c < vec4(HEAD_DIM));
}

fn load_k(row: u32, group: u32) -> vec4<f32> {
    let c = vec4(4u * group) + vec4(0u, 1u, 2u, 3u);
    let e = vec4(row) + min(c, vec4(HEAD_DIM - 1u));
    let w = e / vec4(ELEMENTS_IN_X1);
    let x = vec4(widen_x1(k[w.x], e.x), widen_x1(k[w.y], e.y), widen_x1(k[w.z], e.z), widen_x1(k[w.w], e.w));
    return select(vec4(0.0), x, c < vec4(HEAD_DIM));
}

fn load_v(row: u32, group: u32) -> vec4<f32> {
    let c = vec4(4u * group) + vec4(0u, 1u, 2u, 3u);
    let e = vec4(row) + min(c, vec4(VALUE_DIM - 1u));
    let w = e / vec4(ELEMENTS_IN_X1);
    let x = vec4(widen_x1(v[w.x], e.x), widen_x1(v[w.y], e.y), widen_x1(v[w.z], e.z), widen_x1(v[w.w], e.w));
    return select(vec4(0.0), x, c < vec4(VALUE_DIM));
}
