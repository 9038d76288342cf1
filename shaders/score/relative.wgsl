// Relative rows: (q_i + u_h) . k_j + (q_i + w_h) . r_h(D). A tile multiplies q + u, which `content` gives it, with k, and
// hands the products to `related`, which adds those with r: part of the product, and so below every other term. There are three
// of it: relative_pairs.wgsl, relative_ring.wgsl, which is fast where it can be used, and backward/relative.wgsl.

struct RelativeParams {
    rows: Rows,             // of relative_rows
    count: u32,             // R
    first_distance: i32,    // D of row 0; row t is D = first_distance - t
    head_dim: u32,
    w_at: u32,              // where w begins in relative_biases, behind u
}

// A query with u, as k meets it.
fn with_u(q: vec4<f32>, head: u32, group: u32) -> vec4<f32> {
    if (!RELATIVE_U) { return q; }
    return q + relative_bias(0u, head, group);
}

// A query with w, as r meets it.
fn with_w(q: vec4<f32>, head: u32, group: u32) -> vec4<f32> {
    if (!RELATIVE_W) { return q; }
    return q + relative_bias(params.relative.w_at, head, group);
}

// 4 elements of u or w of a head.
fn relative_bias(first: u32, head: u32, group: u32) -> vec4<f32> {
    return load_relative_biases(first + head * params.relative.head_dim + 4u * group, HEAD_DIM - 4u * group);
}

// Where the rows of r for 4 distances begin. Pairs that are left out may have none: they get one at an end.
fn related_rows(batch: u32, head: u32, distance: vec4<i32>) -> vec4<u32> {
    let t = clamp(vec4(params.relative.first_distance) - distance, vec4(0), vec4(i32(params.relative.count) - 1));
    return vec4(row_at(params.relative.rows, batch, head, 0u)) + vec4<u32>(t) * params.relative.rows.row;
}

fn relative_dot(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
