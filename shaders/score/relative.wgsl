// Relative rows: (q_i + u_h) . k_j + (q_i + w_h) . r_h(D). The tile multiplies q + u, which `content` gives it, with k, and
// hands the products to `related`, which adds those with r: part of the product, and so below every other term. There are two
// of it: relative_pairs.wgsl, and relative_ring.wgsl, which is fast where it can be used.

struct RelativeParams {
    rows: Rows,             // of relative_rows
    count: u32,             // R
    first_distance: i32,    // D of row 0; row t is D = first_distance - t
    head_dim: u32,
    w_at: u32,              // where w begins in relative_biases, behind u
}

// The query of a row of the tile with u, as k meets it.
fn content(at: Head, row: u32, group: u32) -> vec4<f32> {
    let q = query(at, row, group);
    if (!RELATIVE_U) { return q; }
    return q + relative_bias(0u, head_of(at, at.first_row + row), group);
}

// 4 elements of u or w of a head.
fn relative_bias(first: u32, head: u32, group: u32) -> vec4<f32> {
    return load_relative_biases(first + head * params.relative.head_dim + 4u * group, HEAD_DIM - 4u * group);
}

// The query of a row of the tile with w, times the factor, as r meets it.
fn related_query(at: Head, row: u32, group: u32) -> vec4<f32> {
    var q = query(at, row, group);
    if (RELATIVE_W) { q += relative_bias(params.relative.w_at, head_of(at, at.first_row + row), group); }
    return q * params.kernel.q_scale;
}
